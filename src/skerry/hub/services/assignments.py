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
from skerry.hub.domain.devices import Desired, Device, StoredAssignment
from skerry.hub.store.interface import AssignmentStore, DeviceStore
from skerry.trust.assignment import sign_assignment
from skerry.trust.dsse import Envelope, Signs
from skerry.wire.v1.device import Assignment, WorkloadSpec

LIFE = 7 * 86_400.0
LONGEST_WAIT = 60.0

_TRIES = 5
_AHEAD = 3600.0  # issued so far in the future, it was issued by a clock that has been set right since
_REMEMBERED = 50_000


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
        self._closing = asyncio.Event()

    async def current(self, device: Device) -> Issued:
        """The assignment in force, issued now if need be. Raises StaleVersion when replicas keep overtaking each other."""
        known = self._known.get(device.id)
        if known is not None and self._in_force(known, device):
            return known
        issued = await self._read_or_issue(device)
        for _ in range(_TRIES):
            if issued is not None:
                self._remember(device.id, issued)
                return issued
            issued = await self._read_or_issue(await self._store.device(device.id))
        raise StaleVersion(kind="assignment of", name=device.id, problem="other replicas keep issuing it")

    async def envelope(self, device: Device) -> tuple[Issued, bytes]:
        """The assignment in force and its DSSE bytes, of one and the same sequence."""
        issued = await self.current(device)
        stored = await self._store.current_assignment(device.id)
        if stored is None:
            raise NotFound(kind="assignment", name=device.id)
        if stored.sequence != issued.sequence:
            issued = self._as_issued(stored)
        return issued, stored.envelope

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

    async def _read_or_issue(self, device: Device) -> Issued | None:
        """None when `device` was not the newest row any more."""
        last = await self._store.current_assignment(device.id)
        desired = await self._store.desired(device.id)
        known = last is not None and last.sequence == device.assignment_sequence
        if last is not None and known and last.desired_version == desired.version and self._fresh(last):
            return self._as_issued(last)
        previous = device.assignment_sequence
        stored = self._signed(desired, sequence=max(previous + 1, int(self._clock.now())))
        try:
            await self._store.put_assignment(stored, previous=previous)
        except StaleVersion:
            return None
        return self._as_issued(stored)

    def _fresh(self, stored: StoredAssignment) -> bool:
        if not stored.issued - _AHEAD < self._clock.now() < _refresh_at(stored):
            return False
        envelope = msgspec.json.decode(stored.envelope, type=Envelope)
        return any(signature.keyid == self._signer.keyid for signature in envelope.signatures)

    def _signed(self, desired: Desired, *, sequence: int) -> StoredAssignment:
        now = self._clock.now()
        assignment = Assignment(
            device_id=desired.device_id,
            sequence=sequence,
            issued=now,
            expires=now + LIFE,
            workloads=tuple(
                WorkloadSpec(name=one.workload, bundle=one.bundle, soak_seconds=one.soak_seconds, rollout=one.rollout)
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
