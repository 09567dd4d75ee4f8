# SPDX-License-Identifier: Apache-2.0
"""Rollouts: reading the whole picture, and writing a plan's changes or nothing."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, insert, select, tuple_, update

from skerry.errors import NotFound, StaleVersion
from skerry.hub.domain.access import Note
from skerry.hub.domain.devices import DesiredWorkload
from skerry.hub.domain.rollouts import RolloutRecord, RolloutState, StageRecord
from skerry.hub.rollout.changes import DesiredChange, NewEvent, RolloutChanges
from skerry.hub.store.database import Database, Transaction, unique
from skerry.hub.store.rollout_rows import member_row, rollout_of, rollout_row, stage_row
from skerry.hub.store.sql_assignments import write_desired
from skerry.hub.store.sql_catalogue import quarantine_bundle
from skerry.hub.store.sql_picture import Picture, held_devices, to_plan
from skerry.hub.store.tables import (
    counters,
    desired_workloads,
    devices,
    rollout_events,
    rollout_members,
    rollout_stages,
    rollouts,
)
from skerry.wire.v1.operator import RolloutEvent, RolloutStatus


class SqlRollouts:
    _db: Database

    async def rollout_epoch(self, workload: str) -> int:
        query = select(counters.c.value).where(counters.c.name == _epoch_name(workload))
        async with self._db.read() as connection:
            return int((await connection.execute(query)).scalar_one_or_none() or 0)

    async def create_rollout(
        self,
        rollout: RolloutRecord,
        stages: Sequence[StageRecord],
        events: Sequence[NewEvent],
        *,
        epoch: int,
        note: Note | None = None,
    ) -> None:
        async with self._db.write(note) as tx:
            await self._next_epoch(tx, rollout.spec.workload, epoch)
            with unique("rollout", rollout.id):
                await tx.execute(insert(rollouts).values(**rollout_row(rollout)))
            if stages:
                await tx.execute(insert(rollout_stages), [stage_row(rollout.id, stage) for stage in stages])
            await _append_events(tx, rollout.id, events, rollout.created)

    async def rollout(self, rollout_id: str) -> RolloutRecord:
        async with self._db.read() as connection:
            row = (await connection.execute(select(rollouts).where(rollouts.c.id == rollout_id))).one_or_none()
        if row is None:
            raise NotFound(kind="rollout", name=rollout_id)
        return rollout_of(row)

    async def rollouts(
        self, *, statuses: frozenset[RolloutStatus] | None = None, workload: str = "", limit: int = 100, after: str = ""
    ) -> tuple[RolloutRecord, ...]:
        query = select(rollouts)
        if statuses is not None:
            query = query.where(rollouts.c.status.in_(sorted(statuses)))
        if workload:
            query = query.where(rollouts.c.workload == workload)
        if after:
            last = select(rollouts.c.created, rollouts.c.id).where(rollouts.c.id == after)
            query = query.where(tuple_(rollouts.c.created, rollouts.c.id) < last.scalar_subquery())
        query = query.order_by(rollouts.c.created.desc(), rollouts.c.id.desc()).limit(limit)
        async with self._db.read() as connection:
            return tuple(rollout_of(row) for row in await connection.execute(query))

    async def rollouts_to_plan(self) -> tuple[str, ...]:
        async with self._db.read() as connection:
            return await to_plan(connection)

    async def rollout_state(self, rollout_id: str) -> RolloutState:
        async with self._db.read() as connection:
            return await Picture(connection).state(rollout_id)

    async def rollout_devices(self, rollout_id: str) -> frozenset[str]:
        async with self._db.read() as connection:
            return await held_devices(connection, rollout_id)

    async def apply_rollout(self, changes: RolloutChanges, *, note: Note | None = None) -> None:
        rollout = changes.rollout
        async with self._db.write(note) as tx:
            await _take_version(tx, rollout)
            versions = await self._change_desired(tx, changes.desired)
            if changes.stages:
                rows = [stage_row(rollout.id, stage) for stage in changes.stages]
                await tx.execute(self._db.upsert(rollout_stages), rows)
            if changes.members:
                rows = [member_row(rollout.id, member, versions) for member in changes.members]
                await tx.execute(self._db.upsert(rollout_members), rows)
            if changes.quarantine:
                await quarantine_bundle(tx, rollout.bundle.digest, changes.quarantine, changes.at)
            await _append_events(tx, rollout.id, changes.events, changes.at)
            tx.wake(versions)

    async def rollout_events(self, rollout_id: str, *, limit: int = 1000, after: int = 0) -> tuple[RolloutEvent, ...]:
        query = select(rollout_events).where(rollout_events.c.rollout_id == rollout_id, rollout_events.c.n > after)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(rollout_events.c.n).limit(limit))
            return tuple(RolloutEvent(n=row.n, at=row.at, kind=row.kind, detail=row.detail) for row in rows)

    async def _next_epoch(self, tx: Transaction, workload: str, epoch: int) -> None:
        name = _epoch_name(workload)
        seeded = self._db.insert(counters).values(name=name, value=0)
        await tx.execute(seeded.on_conflict_do_nothing(index_elements=["name"]))
        unmoved = (counters.c.name == name) & (counters.c.value == epoch)
        changed = await tx.execute(update(counters).where(unmoved).values(value=epoch + 1))
        if changed.rowcount != 1:
            raise StaleVersion(kind="rollouts of workload", name=workload)

    async def _change_desired(self, tx: Transaction, changes: Sequence[DesiredChange]) -> dict[str, int]:
        """The new desired version per device. Rows are locked in one order everywhere, so writers never deadlock."""
        if not changes:
            return {}
        device_ids = sorted({change.device_id for change in changes})
        locked = select(devices.c.id, devices.c.desired_version).where(devices.c.id.in_(device_ids))
        rows = (await tx.execute(locked.order_by(devices.c.id).with_for_update())).all()
        await _check_owners(tx, changes)
        targets = {(change.device_id, change.workload): _target(change) for change in changes}
        await write_desired(self._db, tx, targets)
        grown = update(devices).where(devices.c.id.in_(device_ids))
        await tx.execute(grown.values(desired_version=devices.c.desired_version + 1))
        return {row.id: row.desired_version + 1 for row in rows}


async def _check_owners(tx: Transaction, changes: Sequence[DesiredChange]) -> None:
    for workload in sorted({change.workload for change in changes}):
        expected = {change.device_id: change.expected for change in changes if change.workload == workload}
        query = select(desired_workloads.c.device_id, desired_workloads.c.rollout).where(
            desired_workloads.c.workload == workload, desired_workloads.c.device_id.in_(sorted(expected))
        )
        owners = {row.device_id: row.rollout for row in await tx.execute(query)}
        for device_id, owner in expected.items():
            if owners.get(device_id, "") != owner:
                raise StaleVersion(kind=f"workload {workload} of device", name=device_id)


def _target(change: DesiredChange) -> DesiredWorkload | None:
    if change.bundle is None:
        return None
    return DesiredWorkload(
        workload=change.workload,
        bundle=change.bundle,
        rollout=change.rollout,
        soak_seconds=change.soak_seconds,
        trial=change.trial,
        keep_warm=change.keep_warm,
    )


async def _take_version(tx: Transaction, rollout: RolloutRecord) -> None:
    unmoved = (rollouts.c.id == rollout.id) & (rollouts.c.version == rollout.version - 1)
    values = {
        "status": str(rollout.status),
        "reason": rollout.reason,
        "undo_started": rollout.undo_started,
        "finished": rollout.finished,
        "version": rollout.version,
    }
    changed = await tx.execute(update(rollouts).where(unmoved).values(**values))
    if changed.rowcount != 1:
        raise StaleVersion(kind="rollout", name=rollout.id)


async def _append_events(tx: Transaction, rollout_id: str, events: Sequence[NewEvent], at: float) -> None:
    """The caller holds the rollout's row, so no one else appends meanwhile."""
    if not events:
        return
    newest = select(func.max(rollout_events.c.n)).where(rollout_events.c.rollout_id == rollout_id)
    last = (await tx.execute(newest)).scalar_one() or 0
    rows = [
        {"rollout_id": rollout_id, "n": n, "at": at, "kind": event.kind, "detail": event.detail}
        for n, event in enumerate(events, start=last + 1)
    ]
    await tx.execute(insert(rollout_events), rows)


def _epoch_name(workload: str) -> str:
    return f"rollouts of {workload}"
