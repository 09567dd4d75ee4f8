# SPDX-License-Identifier: Apache-2.0
"""What one device shall run, signed for it alone, under a sequence that only grows.

An assignment is a signed copy of the device's desired workloads. A new one is issued when those changed, when half of its
life is gone (so that a device which polls at all never holds an expired one), or when the signing key was replaced.

A sequence is the second it was issued in, or one above the last: a hub put back from a backup has forgotten what it issued
since, and counting on from there it would give new assignments numbers that its devices have seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from skerry.effects import Clock
from skerry.errors import NotFound, StaleVersion
from skerry.hub.domain.devices import Desired, Device, Standing, StoredAssignment
from skerry.hub.services.together import Together
from skerry.hub.store.interface import AssignmentStore, DeviceStore
from skerry.trust.assignment import sign_assignment
from skerry.trust.dsse import Envelope, Signs
from skerry.wire.v1.device import Assignment, WorkloadSpec

LIFE = 7 * 86_400.0
LONGEST_WAIT = 60.0

_TRIES = 5
_AHEAD = 3600.0  # issued so far in the future, it was issued by a clock that has been set right since
_REMEMBERED = 50_000
_AT_ONCE = 100  # signed in one go: some ten milliseconds in which the hub does nothing else


@dataclass(frozen=True, kw_only=True)
class Signer:
    keyid: str
    private_key: Signs


@dataclass(frozen=True, kw_only=True)
class Issued:
    """An assignment as a poll needs to know it. `etag` carries its quotes."""

    sequence: int
    desired_version: int
    etag: str
    issued: float
    refresh_at: float


class _Store(AssignmentStore, DeviceStore, Protocol):
    pass


class Assignments:
    """Remembers what it issued or read, only to spare a poll one read: every answer is checked against the device's row."""

    def __init__(self, store: _Store, clock: Clock, signer: Signer) -> None:
        self._store = store
        self._clock = clock
        self._signer = signer
        self._known: OrderedDict[str, Issued] = OrderedDict()
        self._together = Together(self._read_or_issue, at_once=_AT_ONCE)
        self._closing = asyncio.Event()

    async def current(self, device: Device) -> Issued:
        """The assignment in force, issued now if need be. Raises NotFound, and StaleVersion when replicas keep overtaking
        each other.
        """
        known = self._known.get(device.id)
        if known is not None and self._in_force(known, device):
            return known
        issued, _ = await self.envelope(device)
        return issued

    async def envelope(self, device: Device) -> tuple[Issued, bytes]:
        """The assignment in force and its DSSE bytes. Raises as `current` does."""
        for _ in range(_TRIES):
            stored = await self._together.one(device.id)
            if stored is not None:
                issued = self._as_issued(stored)
                self._remember(device.id, issued)
                return issued, stored.envelope
            await self._store.device(device.id)  # NotFound, unless another replica was faster
        raise StaleVersion(kind="assignment of", name=device.id, problem="other replicas keep issuing it")

    async def wait(self, device: Device, seen: Issued, *, seconds: float) -> None:
        """Return when the device's desired workloads are no longer those of `seen`, at the latest after `seconds`.

        Also returns when the device is revoked or deleted, and when the hub is about to stop.
        """
        timeout = min(max(seconds, 0.0), LONGEST_WAIT)
        with contextlib.suppress(NotFound):
            await _first_of(
                self._store.wait_for_change(device.id, seen_version=seen.desired_version, timeout=timeout),
                self._closing.wait(),
            )

    def stop_waiting(self) -> None:
        """End all long-polls, now and from now on, so that the process can stop in good order."""
        self._closing.set()

    def _in_force(self, known: Issued, device: Device) -> bool:
        return (
            known.sequence == device.assignment_sequence
            and known.desired_version == device.desired_version
            and known.issued - _AHEAD < self._clock.now() < known.refresh_at
        )

    async def _read_or_issue(self, device_ids: tuple[str, ...]) -> dict[str, StoredAssignment]:
        """Those in force, some of them issued now. A device is left out when another replica issued one meanwhile."""
        standings = await self._store.standings(device_ids)
        in_force = {name: held for name, one in standings.items() if (held := self._held(one)) is not None}
        now = int(self._clock.now())
        issued = [
            (self._signed(one.desired, sequence=max(one.sequence + 1, now)), one.sequence)
            for name, one in standings.items()
            if name not in in_force
        ]
        stored = await self._store.put_assignments(issued) if issued else frozenset()
        return in_force | {new.device_id: new for new, _ in issued if new.device_id in stored}

    def _held(self, standing: Standing) -> StoredAssignment | None:
        """The last assignment, if it still says what the device shall run, and will for a while."""
        last = standing.last
        if last is None or last.desired_version != standing.desired.version:
            return None
        if not last.issued - _AHEAD < self._clock.now() < _refresh_at(last):
            return None
        envelope = msgspec.json.decode(last.envelope, type=Envelope)
        ours = any(signature.keyid == self._signer.keyid for signature in envelope.signatures)
        return last if ours else None

    def _signed(self, desired: Desired, *, sequence: int) -> StoredAssignment:
        now = self._clock.now()
        assignment = Assignment(
            device_id=desired.device_id,
            sequence=sequence,
            issued=now,
            expires=now + LIFE,
            workloads=tuple(
                WorkloadSpec(
                    name=one.workload,
                    bundle=one.bundle,
                    soak_seconds=one.soak_seconds,
                    rollout=one.rollout,
                    trial=one.trial,
                    keep_warm=one.keep_warm,
                )
                for one in desired.workloads
            ),
        )
        return StoredAssignment(
            device_id=desired.device_id,
            sequence=sequence,
            desired_version=desired.version,
            envelope=sign_assignment(assignment, self._signer.private_key, self._signer.keyid),
            issued=now,
            expires=assignment.expires,
        )

    @staticmethod
    def _as_issued(stored: StoredAssignment) -> Issued:
        return Issued(
            sequence=stored.sequence,
            desired_version=stored.desired_version,
            etag=f'"{stored.sequence}.{sha256(stored.envelope).hexdigest()[:32]}"',
            issued=stored.issued,
            refresh_at=_refresh_at(stored),
        )

    def _remember(self, device_id: str, issued: Issued) -> None:
        self._known[device_id] = issued
        self._known.move_to_end(device_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _refresh_at(stored: StoredAssignment) -> float:
    return stored.issued + (stored.expires - stored.issued) / 2


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for whichever ends first; its error is raised, the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
