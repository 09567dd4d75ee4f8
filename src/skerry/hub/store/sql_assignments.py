# SPDX-License-Identifier: Apache-2.0
"""What devices shall run, and the signed copies of that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from skerry.errors import NotFound, StaleVersion
from skerry.hub.domain.devices import Desired, DesiredWorkload, StoredAssignment
from skerry.hub.store.database import Database, Transaction
from skerry.hub.store.documents import dump, load
from skerry.hub.store.sql_devices import lock_device
from skerry.hub.store.tables import assignments, desired_workloads, devices
from skerry.hub.store.wholeness import whole
from skerry.wire.v1.device import BundleRef

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

    async def current_assignment(self, device_id: str) -> StoredAssignment | None:
        query = (
            select(assignments)
            .join(devices, devices.c.id == assignments.c.device_id)
            .where(assignments.c.device_id == device_id, assignments.c.sequence == devices.c.assignment_sequence)
        )
        async with self._db.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _assignment(row)

    async def put_assignment(self, assignment: StoredAssignment, *, previous: int) -> None:
        mine = (devices.c.id == assignment.device_id) & (devices.c.assignment_sequence == previous)
        async with self._db.write() as tx:
            changed = await tx.execute(update(devices).where(mine).values(assignment_sequence=assignment.sequence))
            if changed.rowcount != 1:
                raise StaleVersion(kind="assignment of device", name=assignment.device_id)
            await tx.execute(insert(assignments).values(**_row(assignment)))
            theirs = assignments.c.device_id == assignment.device_id
            newest = select(assignments.c.sequence).where(theirs).order_by(assignments.c.sequence.desc())
            kept = newest.limit(KEPT_ASSIGNMENTS).subquery()
            await tx.execute(delete(assignments).where(theirs, assignments.c.sequence.not_in(select(kept.c.sequence))))

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
