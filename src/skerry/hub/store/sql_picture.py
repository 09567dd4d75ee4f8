# SPDX-License-Identifier: Apache-2.0
"""The picture a plan is made from: a rollout, its members, what they last said, and the fleet when a stage may start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skerry.errors import NotFound
from skerry.hub.domain.rollouts import ACTIVE, FleetDevice, MemberState, RolloutRecord, RolloutState, Seen
from skerry.hub.rollout.members import BY_THE_CLOCK
from skerry.hub.store.documents import load, load_labels
from skerry.hub.store.rollout_rows import member_of, rollout_of, stage_of
from skerry.hub.store.sql_devices import selected
from skerry.hub.store.sql_reports import figures_of, status_of, trial_of
from skerry.hub.store.tables import (
    desired_workloads,
    device_workloads,
    devices,
    figures,
    rollout_members,
    rollout_stages,
    rollouts,
    trials,
)
from skerry.wire.v1.device import BundleRef
from skerry.wire.v1.operator import RolloutStatus, StageStatus
from skerry.wire.v1.report import TERMINAL_FAILURES, WorkloadState

_ACTIVE = tuple(sorted(ACTIVE))
_HOLDING = tuple(sorted(set(MemberState) - {MemberState.UNDONE, MemberState.SUPERSEDED}))
_BETWEEN_STAGES = frozenset({StageStatus.WAITING, StageStatus.DONE})


class Picture:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def state(self, rollout_id: str) -> RolloutState:
        rollout = await _rollout(self._connection, rollout_id)
        query = select(rollout_stages).where(rollout_stages.c.rollout_id == rollout_id)
        stages = tuple(stage_of(row) for row in await self._connection.execute(query.order_by(rollout_stages.c.stage)))
        members = (await self._connection.execute(_members(rollout))).all()
        between = all(stage.status in _BETWEEN_STAGES for stage in stages)
        starting = rollout.status is RolloutStatus.RUNNING and between
        return RolloutState(
            rollout=rollout,
            stages=stages,
            members=tuple(member_of(row) for row in members),
            seen=await self._seen(rollout) if members else {},
            fleet=await self._fleet(rollout) if starting else None,
        )

    async def _seen(self, rollout: RolloutRecord) -> dict[str, Seen]:
        """Keyed by device."""
        statuses = await self._connection.execute(_of_members(rollout, select(device_workloads), device_workloads))
        status = {row.device_id: status_of(row) for row in statuses}
        windows = _of_members(rollout, select(figures), figures).where(figures.c.digest == rollout.bundle.digest)
        window = {row.device_id: figures_of(row) for row in await self._connection.execute(windows)}
        tried = _of_members(rollout, select(trials), trials).where(trials.c.digest == rollout.bundle.digest)
        trial = {row.device_id: trial_of(row) for row in await self._connection.execute(tried)}
        rows = await self._connection.execute(_shall_run(rollout))
        return {
            row.device_id: Seen(
                status=status.get(row.device_id),
                figures=window.get(row.device_id),
                trial=trial.get(row.device_id),
                applied_version=row.applied_version,
                desired=None if row.bundle is None else load(row.bundle, BundleRef),
                desired_rollout=row.rollout or "",
                desired_soak=30.0 if row.soak_seconds is None else row.soak_seconds,
                revoked=row.revoked is not None or row.deleted is not None,
            )
            for row in rows
        }

    async def _fleet(self, rollout: RolloutRecord) -> tuple[FleetDevice, ...]:
        workload = rollout.spec.workload
        query = (
            select(devices.c.id, devices.c.name, devices.c.labels, desired_workloads.c.bundle)
            .outerjoin(
                desired_workloads,
                and_(desired_workloads.c.device_id == devices.c.id, desired_workloads.c.workload == workload),
            )
            .where(devices.c.deleted.is_(None), devices.c.revoked.is_(None))
            .order_by(devices.c.id)
        )
        rows = await self._connection.execute(selected(query, rollout.selector))
        busy = {row.device_id for row in await self._connection.execute(_held_by_others(rollout))}
        return tuple(
            FleetDevice(
                device_id=row.id,
                name=row.name,
                labels=load_labels(row.labels),
                desired=None if row.bundle is None else load(row.bundle, BundleRef),
                busy=row.id in busy,
            )
            for row in rows
        )


async def to_plan(connection: AsyncConnection) -> tuple[str, ...]:
    queries = (
        select(rollouts.c.id).where(rollouts.c.status.in_(_ACTIVE)),
        _on_their_way_back(),
        _fallen_back(),
        _late(),
    )
    wanted: set[str] = set()
    for query in queries:
        wanted.update(row.id for row in await connection.execute(query))
    ordered = select(rollouts.c.id).where(rollouts.c.id.in_(sorted(wanted)))
    rows = await connection.execute(ordered.order_by(rollouts.c.created, rollouts.c.id))
    return tuple(row.id for row in rows)


async def held_devices(connection: AsyncConnection, rollout_id: str) -> frozenset[str]:
    rollout = await _rollout(connection, rollout_id)
    members = select(rollout_members.c.device_id).where(
        rollout_members.c.rollout_id == rollout_id, rollout_members.c.state.in_(_HOLDING)
    )
    held = {row.device_id for row in await connection.execute(members)}
    if rollout.status in ACTIVE:
        matching = selected(select(devices.c.id).where(devices.c.deleted.is_(None)), rollout.selector)
        held.update(row.id for row in await connection.execute(matching))
    return frozenset(held)


async def _rollout(connection: AsyncConnection, rollout_id: str) -> RolloutRecord:
    row = (await connection.execute(select(rollouts).where(rollouts.c.id == rollout_id))).one_or_none()
    if row is None:
        raise NotFound(kind="rollout", name=rollout_id)
    return rollout_of(row)


def _members(rollout: RolloutRecord) -> Select[Any]:
    query = select(rollout_members).where(rollout_members.c.rollout_id == rollout.id)
    return query.order_by(rollout_members.c.stage, rollout_members.c.name, rollout_members.c.device_id)


def _of_members(rollout: RolloutRecord, query: Select[Any], table: Any) -> Select[Any]:  # noqa: ANN401 - a Table; its columns are untyped
    joined = query.join(rollout_members, rollout_members.c.device_id == table.c.device_id)
    return joined.where(rollout_members.c.rollout_id == rollout.id, table.c.workload == rollout.spec.workload)


def _shall_run(rollout: RolloutRecord) -> Select[Any]:
    mine = and_(
        desired_workloads.c.device_id == devices.c.id,
        desired_workloads.c.workload == rollout.spec.workload,
    )
    return (
        select(
            rollout_members.c.device_id,
            devices.c.applied_version,
            devices.c.revoked,
            devices.c.deleted,
            desired_workloads.c.bundle,
            desired_workloads.c.rollout,
            desired_workloads.c.soak_seconds,
        )
        .join(devices, devices.c.id == rollout_members.c.device_id)
        .outerjoin(desired_workloads, mine)
        .where(rollout_members.c.rollout_id == rollout.id)
    )


def _held_by_others(rollout: RolloutRecord) -> Select[Any]:
    return (
        select(rollout_members.c.device_id)
        .join(rollouts, rollouts.c.id == rollout_members.c.rollout_id)
        .where(
            rollouts.c.id != rollout.id,
            rollouts.c.workload == rollout.spec.workload,
            rollouts.c.status.in_(_ACTIVE),
            rollout_members.c.state.in_(_HOLDING),
        )
    )


def _on_their_way_back() -> Select[Any]:
    undone = rollouts.c.status == RolloutStatus.UNDONE
    joined = select(rollouts.c.id).join(rollout_members, rollout_members.c.rollout_id == rollouts.c.id)
    return joined.where(undone, rollout_members.c.state == MemberState.UNDOING).distinct()


def _said_of_the_digest() -> Select[Any]:
    """Done rollouts with the members whose last word is about the rollout's own digest."""
    return (
        select(rollouts.c.id)
        .join(rollout_members, rollout_members.c.rollout_id == rollouts.c.id)
        .join(
            device_workloads,
            and_(
                device_workloads.c.device_id == rollout_members.c.device_id,
                device_workloads.c.workload == rollouts.c.workload,
                device_workloads.c.digest == rollouts.c.digest,
                or_(device_workloads.c.rollout == rollouts.c.id, device_workloads.c.rollout == ""),
            ),
        )
        .where(rollouts.c.status == RolloutStatus.DONE)
        .distinct()
    )


def _fallen_back() -> Select[Any]:
    mine = and_(
        desired_workloads.c.device_id == rollout_members.c.device_id,
        desired_workloads.c.workload == rollouts.c.workload,
        desired_workloads.c.rollout == rollouts.c.id,
    )
    return (
        _said_of_the_digest()
        .join(desired_workloads, mine)
        .where(
            rollout_members.c.state == MemberState.COMMITTED,
            device_workloads.c.state.in_(sorted(TERMINAL_FAILURES)),
        )
    )


def _late() -> Select[Any]:
    settled = (WorkloadState.COMMITTED, *sorted(TERMINAL_FAILURES))
    return _said_of_the_digest().where(
        rollout_members.c.state == MemberState.FAILED,
        rollout_members.c.reason.in_(sorted(BY_THE_CLOCK)),
        device_workloads.c.state.in_(settled),
    )
