# SPDX-License-Identifier: Apache-2.0
"""What devices shall run, and the signed copies of that."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Delete, Row, bindparam, delete, insert, select, update

from skerry.errors import NotFound
from skerry.hub.domain.devices import Desired, DesiredWorkload, Standing, StoredAssignment
from skerry.hub.store.database import Database, Transaction
from skerry.hub.store.documents import dump, load
from skerry.hub.store.sql_devices import lock_device
from skerry.hub.store.tables import assignments, desired_workloads, devices
from skerry.hub.store.wholeness import whole
from skerry.wire.v1.device import BundleRef, KeepWarm, Trial

KEPT_ASSIGNMENTS = 16


class SqlAssignments:
    _db: Database

    async def desired(self, device_id: str) -> Desired:
        version = select(devices.c.desired_version).where(devices.c.id == device_id, devices.c.deleted.is_(None))
        query = select(desired_workloads).where(desired_workloads.c.device_id == device_id)
        async with self._db.read() as connection:
            row = (await connection.execute(version)).one_or_none()
            rows = (await connection.execute(query.order_by(desired_workloads.c.workload))).all()
        if row is None:
            raise NotFound(kind="device", name=device_id)
        workloads = tuple(_workload(row) for row in rows)
        return Desired(device_id=device_id, version=row.desired_version, workloads=workloads)

    async def set_desired(self, device_id: str, workload: str, target: DesiredWorkload | None) -> int:
        async with self._db.write() as tx:
            row = await lock_device(tx, device_id)
            await write_desired(self._db, tx, {(device_id, workload): target})
            version = int(row.desired_version) + 1
            await tx.execute(update(devices).where(devices.c.id == device_id).values(desired_version=version))
            tx.wake((device_id,))
            return version

    async def standings(self, device_ids: Collection[str]) -> dict[str, Standing]:
        ids = sorted(device_ids)
        who = select(devices.c.id, devices.c.desired_version, devices.c.assignment_sequence).where(
            devices.c.id.in_(ids), devices.c.deleted.is_(None)
        )
        what = select(desired_workloads).where(desired_workloads.c.device_id.in_(ids))
        newest = (
            select(assignments)
            .join(devices, devices.c.id == assignments.c.device_id)
            .where(assignments.c.device_id.in_(ids), assignments.c.sequence == devices.c.assignment_sequence)
        )
        workloads: dict[str, list[DesiredWorkload]] = {}
        async with self._db.read() as connection:
            rows = (await connection.execute(who)).all()
            for row in await connection.execute(what.order_by(desired_workloads.c.workload)):
                workloads.setdefault(row.device_id, []).append(_workload(row))
            last = {row.device_id: _assignment(row) for row in await connection.execute(newest)}
        return {
            row.id: Standing(
                desired=Desired(
                    device_id=row.id, version=row.desired_version, workloads=tuple(workloads.get(row.id, ()))
                ),
                sequence=row.assignment_sequence,
                last=last.get(row.id),
            )
            for row in rows
        }

    async def put_assignments(self, issued: Collection[tuple[StoredAssignment, int]]) -> frozenset[str]:
        """Devices are locked in one order everywhere, so that writers never wait for each other in a circle."""
        ids = sorted(assignment.device_id for assignment, _ in issued)
        locked = select(devices.c.id, devices.c.assignment_sequence).where(devices.c.id.in_(ids)).order_by(devices.c.id)
        async with self._db.write() as tx:
            sequences = {row.id: row.assignment_sequence for row in await tx.execute(locked.with_for_update())}
            new = [assignment for assignment, previous in issued if sequences.get(assignment.device_id) == previous]
            if new:
                grown = (
                    update(devices)
                    .where(devices.c.id == bindparam("device"))
                    .values(assignment_sequence=bindparam("to"))
                )
                await tx.execute(grown, [{"device": one.device_id, "to": one.sequence} for one in new])
                await tx.execute(insert(assignments), [_row(one) for one in new])
                await tx.execute(_old_ones(), [{"device": one.device_id} for one in new])
        return frozenset(one.device_id for one in new)

    async def wait_for_change(self, device_id: str, *, seen_version: int, timeout: float) -> int:  # noqa: ASYNC109 - an upper bound, not a cancellation
        wakeups = self._db.wakeups
        clock = asyncio.get_running_loop().time
        end = clock() + timeout
        with wakeups.waiter(device_id) as woken:
            while True:
                woken.clear()
                version, revoked = await self._version(device_id)
                left = end - clock()
                if version != seen_version or revoked or left <= 0 or wakeups.closed:
                    return version
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(left, self._db.recheck_seconds))

    @whole
    async def _version(self, device_id: str) -> tuple[int, bool]:
        query = select(devices.c.desired_version, devices.c.revoked).where(
            devices.c.id == device_id, devices.c.deleted.is_(None)
        )
        async with self._db.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(kind="device", name=device_id)
        return row.desired_version, row.revoked is not None


def _old_ones() -> Delete:
    """Assignments of one device (parameter `device`) but the newest ones."""
    theirs = assignments.c.device_id == bindparam("device")
    newest = select(assignments.c.sequence).where(theirs).order_by(assignments.c.sequence.desc())
    kept = newest.limit(KEPT_ASSIGNMENTS).subquery()
    return delete(assignments).where(theirs, assignments.c.sequence.not_in(select(kept.c.sequence)))


async def write_desired(
    db: Database, tx: Transaction, targets: Mapping[tuple[str, str], DesiredWorkload | None]
) -> None:
    """Set or remove workloads of devices whose rows the transaction holds already."""
    rows = [
        {
            "device_id": device_id,
            "workload": workload,
            "bundle": dump(target.bundle),
            "rollout": target.rollout,
            "soak_seconds": target.soak_seconds,
            "trial": None if target.trial is None else dump(target.trial),
            "keep_warm": str(target.keep_warm),
        }
        for (device_id, workload), target in targets.items()
        if target is not None
    ]
    if rows:
        await tx.execute(db.upsert(desired_workloads), rows)
    gone: dict[str, list[str]] = {}
    for (device_id, workload), target in targets.items():
        if target is None:
            gone.setdefault(workload, []).append(device_id)
    for workload, device_ids in gone.items():
        theirs = desired_workloads.c.device_id.in_(device_ids)
        await tx.execute(delete(desired_workloads).where(desired_workloads.c.workload == workload, theirs))


def _workload(row: Row[Any]) -> DesiredWorkload:
    return DesiredWorkload(
        workload=row.workload,
        bundle=load(row.bundle, BundleRef),
        rollout=row.rollout,
        soak_seconds=row.soak_seconds,
        trial=None if row.trial is None else load(row.trial, Trial),
        keep_warm=KeepWarm(row.keep_warm or KeepWarm.AUTO),
    )


def _assignment(row: Row[Any]) -> StoredAssignment:
    return StoredAssignment(
        device_id=row.device_id,
        sequence=row.sequence,
        desired_version=row.desired_version,
        envelope=row.envelope,
        issued=row.issued,
        expires=row.expires,
    )


def _row(assignment: StoredAssignment) -> dict[str, Any]:
    return {
        "device_id": assignment.device_id,
        "sequence": assignment.sequence,
        "desired_version": assignment.desired_version,
        "envelope": assignment.envelope,
        "issued": assignment.issued,
        "expires": assignment.expires,
    }
