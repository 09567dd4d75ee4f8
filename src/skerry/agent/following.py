# SPDX-License-Identifier: Apache-2.0
"""The follower: asks the hub for this device's assignment, has trust look at it, and keeps the one in force on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from skerry.agent.history import History
from skerry.agent.permits import Permits
from skerry.agent.state import Layout
from skerry.agent.transport import Backoff, Fetched, HubRoad
from skerry.effects import Clock, Files
from skerry.errors import CatalogueRefused, DeviceError, HubError, RoadError
from skerry.trust.assignment import Accepted, Refused
from skerry.trust.chain import Value
from skerry.wire.v1.device import Assignment

_log = logging.getLogger(__name__)

LEAST_PAUSE = 1.0
CLOCK_SET = 60.0  # seconds by which a clock was not slewed but set
_REFUSED = "assignment-refused"


@dataclass(kw_only=True)
class Follower:
    """`assignment` is the one in force, None when there is none. `round` is one turn of the follower thread.

    The newest document of the hub is held, refused or not, and judged again after every refresh of the catalogue; so is
    the one in force, when another one is held.
    """

    road: HubRoad
    permits: Permits
    history: History
    files: Files
    layout: Layout
    clock: Clock
    backoff: Backoff
    changed: Callable[[], None]
    poll: float
    refresh_every: float
    assignment: Assignment | None = None
    reached: bool | None = None
    hub_ahead: float = 0.0
    _held: Fetched | None = None
    _in_force: bytes = b""
    _next_refresh: float = 0.0
    _clock_base: float = 0.0  # clock minus monotonic clock when the last judgement was made
    _noted: dict[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> str:
        """Why the assignment the hub gives is not followed; empty when it is."""
        return self._noted.get(_REFUSED, "")

    def restore(self) -> None:
        """The assignment of the last run, trusted anew. None is in force when it cannot be: then nothing new is installed."""
        envelope = self.files.read(self.layout.assignment)
        if envelope is None:
            return
        self._held = Fetched(envelope=envelope, etag="")
        try:
            decision = self.permits.accept(envelope)
        except (RoadError, CatalogueRefused, DeviceError) as error:
            _log.warning("stored assignment not trusted error=%s", error)
            return
        if isinstance(decision, Accepted):
            self.assignment, self._in_force = decision.assignment, envelope
        else:
            _log.warning("stored assignment refused reason=%s", decision.reason)

    def round(self, stopping: threading.Event) -> float:
        """Returns seconds to pause before the next round."""
        asked = self.clock.monotonic()
        try:
            fetched = self.road.assignment(
                etag=self._held.etag if self._held else "", wait=0.0 if self._refresh_due() else self.poll
            )
            self.reached, self.hub_ahead = True, self.road.clock_offset
            if fetched is not None:
                self._held, self._next_refresh = fetched, 0.0
            if self._refresh_due() and not stopping.is_set():
                self._refresh()
                self._judge()
        except (RoadError, HubError) as error:
            self.reached = False
            _log.info("hub not reached error=%s", error)
            return self.backoff.failed()
        except DeviceError as error:  # a full disk, floors that are gone: what runs runs on
            _log.error("not followed code=%s error=%s", error.code, error)
            return self.backoff.failed()
        self.backoff.succeeded()
        return self._pause(self.clock.monotonic() - asked)

    def _pause(self, took: float) -> float:
        """None after a question the hub held open; one that answers at once must not be asked in a tight loop."""
        if took >= self.poll / 2:
            return 0.0
        return min(self.poll, LEAST_PAUSE)

    def _refresh_due(self) -> bool:
        """Also at once when the clock was set: what was refused for a wrong one may be right by now."""
        was_set = abs(self.clock.now() - self.clock.monotonic() - self._clock_base) > CLOCK_SET
        return was_set or self.clock.monotonic() >= self._next_refresh

    def _refresh(self) -> None:
        try:
            self.permits.refresh()
            self._noted.pop("catalogue-refused", None)
        except CatalogueRefused as error:
            _log.warning("catalogue refused error=%s", error)
            self._note("catalogue-refused", str(error.fields["reason"]), str(error))

    def _judge(self) -> None:
        """After every refresh: a key may be disowned, and what was refused for a wrong clock may be right by now."""
        if self._in_force and isinstance(self._decide(self._in_force), Refused):
            self.assignment, self._in_force = None, b""
            self.changed()
        if self._held is not None:
            match self._decide(self._held.envelope):
                case Accepted(assignment=assignment):
                    self._accepted(self._held.envelope, assignment)
                case Refused(reason=reason, detail=detail):
                    _log.warning("assignment refused reason=%s detail=%s", reason, detail)
                    self._note(_REFUSED, reason, detail)
                case None:
                    pass
        self._next_refresh = self.clock.monotonic() + self.refresh_every
        self._clock_base = self.clock.now() - self.clock.monotonic()

    def _decide(self, envelope: bytes) -> Accepted | Refused | None:
        """None when the catalogue cannot say."""
        try:
            return self.permits.accept(envelope)
        except CatalogueRefused as error:
            _log.warning("assignment not judged error=%s", error)
            self._note(_REFUSED, str(error.fields["reason"]), str(error))
            return None

    def _accepted(self, envelope: bytes, assignment: Assignment) -> None:
        self._noted.pop(_REFUSED, None)
        if envelope == self._in_force:
            return
        known = self.assignment
        self.files.write(self.layout.assignment, envelope)
        if known is None or known.sequence != assignment.sequence:
            names = ",".join(f"{spec.name}={spec.bundle.name}" for spec in assignment.workloads)
            fields: dict[str, Value] = {"sequence": assignment.sequence, "workloads": names}
            self.history.append("assignment-accepted", at=self.clock.now(), fields=fields)
        self.assignment, self._in_force = assignment, envelope
        self.changed()

    def _note(self, kind: str, reason: str, detail: str) -> None:
        """Into history once per kind and reason, until that kind of thing went well again."""
        if self._noted.get(kind) == reason:
            return
        self._noted[kind] = reason
        self.history.append(kind, at=self.clock.now(), fields={"reason": reason, "detail": detail[:2000]})
