# SPDX-License-Identifier: Apache-2.0
"""A rollout as the API and the CLI show it: the planner's own figures, so that no two places disagree."""

from __future__ import annotations

from skerry.hub.domain.rollouts import Member, Outcome, RolloutState, StageRecord
from skerry.hub.rollout.gates import gates_of, measure, members_of
from skerry.hub.rollout.trials import trial_of
from skerry.wire.v1.operator import GateResult, RolloutDevice, RolloutView, StageStatus, StageView

_MEASURED_NOW = frozenset({StageStatus.RUNNING, StageStatus.SOAKING})


def view(state: RolloutState) -> RolloutView:
    rollout = state.rollout
    return RolloutView(
        id=rollout.id,
        spec=rollout.spec,
        bundle=rollout.bundle,
        status=rollout.status,
        reason=rollout.reason,
        created=rollout.created,
        created_by=rollout.created_by,
        finished=rollout.finished,
        stages=tuple(_stage(state, stage) for stage in state.stages),
        devices=tuple(_device(state, member) for member in state.members),
    )


def _stage(state: RolloutState, stage: StageRecord) -> StageView:
    members = members_of(state, stage.index)
    committed = sum(member.outcome is Outcome.COMMITTED for member in members)
    failed = sum(member.outcome is Outcome.FAILED for member in members)
    return StageView(
        name=stage.name,
        status=stage.status,
        total=len(members),
        committed=committed,
        failed=failed,
        pending=len(members) - committed - failed,
        gates=_gates(state, stage),
    )


def _gates(state: RolloutState, stage: StageRecord) -> tuple[GateResult, ...]:
    if stage.status in _MEASURED_NOW:
        return measure(state, stage)
    return stage.gates or tuple(
        GateResult(metric=gate.metric, measured=None, min=gate.min, max=gate.max)
        for gate in gates_of(state.rollout.spec)
    )


def _device(state: RolloutState, member: Member) -> RolloutDevice:
    return RolloutDevice(
        device_id=member.device_id,
        name=member.name,
        stage=member.stage,
        state=str(member.state),
        reason=member.reason,
        trial=trial_of(state, member),
    )
