# SPDX-License-Identifier: Apache-2.0
"""Trust's answers for this device: catalogue, floors and the device's policy behind one lock.

Catalogue and floors are one state: whoever refreshes, accepts or commits raises the floors in the same breath.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from skerry.agent.state import Layout
from skerry.effects import Clock, Files
from skerry.errors import CatalogueRefused, DeviceError, RoadError
from skerry.trust import assignment as assignments
from skerry.trust import floors as floors_file
from skerry.trust.catalogue import Catalogue
from skerry.trust.decision import (
    Allowed,
    CatalogueEntry,
    ConfigFacts,
    InstallPolicy,
    Refused,
    decide_fetch,
    decide_install,
)
from skerry.trust.floors import Floors, effective_now, raise_assignment, raise_release
from skerry.wire.v1.device import WorkloadSpec

T = TypeVar("T")


class Permits:
    def __init__(
        self,
        catalogue: Catalogue,
        files: Files,
        layout: Layout,
        clock: Clock,
        *,
        device_id: str,
        policy: InstallPolicy | None = None,
    ) -> None:
        """Floors that are gone or damaged are no reason not to serve, but every question is answered by that DeviceError:
        a device does not start again from zero by itself.
        """
        self._catalogue = catalogue
        self._files = files
        self._path = layout.floors
        self._clock = clock
        self._device_id = device_id
        self._policy = policy or InstallPolicy()
        self._lock = threading.RLock()
        self._floors = Floors()
        self.damage: DeviceError | None = None
        try:
            self._floors = floors_file.load(files, layout.floors)
        except DeviceError as error:
            self.damage = error
        self._open = False
        self.refreshed = 0.0  # clock time of the last refresh that succeeded

    @property
    def floors(self) -> Floors:
        return self._floors

    def now(self) -> float:
        """The time to decide with: never before the floor."""
        return effective_now(self._clock.now(), self._floors)

    def refresh(self) -> None:
        """Raises RoadError, CatalogueRefused, DeviceError; what was verified before then goes on answering."""
        with self._lock:
            self._require_floors()
            self._open = False
            try:
                self._raise(self._catalogue.refresh(self._floors))
            except (RoadError, CatalogueRefused):
                self._ensure_open()
                raise
            self._open = True
            self.refreshed = self._clock.now()

    def accept(self, envelope: bytes) -> assignments.Accepted | assignments.Refused:
        """Whether this device follows the assignment from now on. Raises RoadError, CatalogueRefused, DeviceError."""
        with self._lock:
            keys = self._ask(self._catalogue.assignment_keys)
            decision = assignments.decide_assignment(
                envelope, keys=keys, device_id=self._device_id, floors=self._floors, now=self._clock.now()
            )
            if isinstance(decision, assignments.Accepted):
                sequence = decision.assignment.sequence
                self._raise(
                    raise_assignment(self._floors, sequence=sequence, digest=decision.digest, keys=decision.keys)
                )
            return decision

    def entry(self, target: str) -> CatalogueEntry | None:
        with self._lock:
            return self._ask(lambda: self._catalogue.entry(target))

    def manifest(self, entry: CatalogueEntry) -> bytes:
        with self._lock:
            return self._ask(lambda: self._catalogue.manifest(entry))

    def for_fetch(self, spec: WorkloadSpec, failed: frozenset[str]) -> Allowed | Refused:
        with self._lock:
            return decide_fetch(
                spec=spec,
                entry=self.entry(spec.bundle.target),
                floors=self._floors,
                failed_digests=failed,
                now=self._clock.now(),
                policy=self._policy,
            )

    def for_install(self, spec: WorkloadSpec, facts: ConfigFacts, failed: frozenset[str]) -> Allowed | Refused:
        with self._lock:
            return decide_install(
                spec=spec,
                entry=self.entry(spec.bundle.target),
                facts=facts,
                floors=self._floors,
                failed_digests=failed,
                now=self._clock.now(),
                policy=self._policy,
            )

    def committed(self, *, line: str, model: str, release_seq: int, replaced: int | None, floor_seq: int) -> None:
        with self._lock:
            self._require_floors()
            self._raise(
                raise_release(
                    self._floors, line=line, model=model, committed=release_seq, replaced=replaced, floor_seq=floor_seq
                )
            )

    # --- inside ---

    def _ask(self, question: Callable[[], T]) -> T:
        """With the metadata of an earlier refresh when there was none since the start."""
        self._require_floors()
        if not self._open:
            self._catalogue.open_offline(self._floors)
            self._open = True
        return question()

    def _require_floors(self) -> None:
        if self.damage is not None:
            raise self.damage.with_traceback(None)

    def _ensure_open(self) -> None:
        try:
            self._catalogue.open_offline(self._floors)
        except (CatalogueRefused, RoadError):  # nothing verified to fall back to: every answer will say so
            return
        self._open = True

    def _raise(self, floors: Floors) -> None:
        if floors != self._floors:
            floors_file.save(self._files, self._path, floors)
            self._floors = floors
