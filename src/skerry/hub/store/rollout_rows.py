# SPDX-License-Identifier: Apache-2.0
"""Rollout values to rows and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from skerry.hub.domain.rollouts import Member, MemberState, Outcome, RolloutRecord, StageRecord
from skerry.hub.store.documents import dump, load, load_labels
from skerry.wire.v1.device import BundleRef
from skerry.wire.v1.operator import GateResult, RolloutSpec, RolloutStatus, StageStatus


def rollout_row(rollout: RolloutRecord) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "workload": rollout.spec.workload,
        "digest": rollout.bundle.digest,
        "status": str(rollout.status),
        "reason": rollout.reason,
        "spec": dump(rollout.spec),
        "selector": dump(rollout.selector),
        "bundle": dump(rollout.bundle),
        "created": rollout.created,
        "created_by": rollout.created_by,
        "undo_started": rollout.undo_started,
        "finished": rollout.finished,
        "version": rollout.version,
    }


def rollout_of(row: Row[Any]) -> RolloutRecord:
    return RolloutRecord(
        id=row.id,
        spec=load(row.spec, RolloutSpec),
        selector=load_labels(row.selector),
        bundle=load(row.bundle, BundleRef),
        status=RolloutStatus(row.status),
        reason=row.reason,
        created=row.created,
        created_by=row.created_by,
        undo_started=row.undo_started,
        finished=row.finished,
        version=row.version,
    )


def stage_row(rollout_id: str, stage: StageRecord) -> dict[str, Any]:
    return {
        "rollout_id": rollout_id,
        "stage": stage.index,
        "name": stage.name,
        "status": str(stage.status),
        "fleet": stage.fleet,
        "started": stage.started,
        "soak_since": stage.soak_since,
        "finished": stage.finished,
        "waived": stage.waived,
        "gates": dump(stage.gates),
    }


def stage_of(row: Row[Any]) -> StageRecord:
    return StageRecord(
        index=row.stage,
        name=row.name,
        status=StageStatus(row.status),
        fleet=row.fleet,
        started=row.started,
        soak_since=row.soak_since,
        finished=row.finished,
        waived=row.waived,
        gates=load(row.gates, tuple[GateResult, ...]),
    )


def member_row(rollout_id: str, member: Member, versions: Mapping[str, int]) -> dict[str, Any]:
    """`versions`: desired versions this very write gave to devices."""
    return {
        "rollout_id": rollout_id,
        "device_id": member.device_id,
        "name": member.name,
        "stage": member.stage,
        "state": str(member.state),
        "outcome": str(member.outcome),
        "reason": member.reason,
        "previous": None if member.previous is None else dump(member.previous),
        "previous_soak": member.previous_soak,
        "assigned_at": member.assigned_at,
        "resolved_at": member.resolved_at,
        "undo_at": member.undo_at,
        "accepted": member.accepted,
        "desired_version": versions.get(member.device_id, member.desired_version),
    }


def member_of(row: Row[Any]) -> Member:
    return Member(
        device_id=row.device_id,
        name=row.name,
        stage=row.stage,
        state=MemberState(row.state),
        outcome=Outcome(row.outcome),
        reason=row.reason,
        previous=None if row.previous is None else load(row.previous, BundleRef),
        previous_soak=row.previous_soak,
        assigned_at=row.assigned_at,
        resolved_at=row.resolved_at,
        undo_at=row.undo_at,
        accepted=row.accepted,
        desired_version=row.desired_version,
    )
