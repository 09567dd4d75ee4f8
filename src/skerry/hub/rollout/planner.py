# SPDX-License-Identifier: Apache-2.0
"""`plan(state, now)`: the next step of a rollout. Apply it, look again, until nothing is left to do.

One plan does one thing: record what devices reported, and then fail, undo, start, assign, soak or finish.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from skerry.hub.domain.devices import matches
from skerry.hub.domain.rollouts import FleetDevice, Member, MemberState, RolloutState, Seen, StageRecord
from skerry.hub.rollout.actions import (
    Action,
    AssignDevice,
    FailStage,
    FinishStage,
    MarkDevice,
    Plan,
    Quarantine,
    SetStatus,
    SoakStage,
    StartStage,
    UndoDevice,
)
from skerry.hub.rollout.changes import after
from skerry.hub.rollout.gates import all_resolved, measure, members_of, unmeasured, wants_figures
from skerry.hub.rollout.members import SUPERSEDED, judge
from skerry.hub.rollout.words import describe_gates, names
from skerry.wire.v1.operator import GateResult, Metric, OnFailure, RolloutStatus, StageSpec, StageStatus

BATCH = 500
"""Devices told in one transaction: a huge stage neither locks the database nor is half a stage lost on a crash."""

_NOTHING = Seen()
_UNDER_WAY = frozenset({StageStatus.RUNNING, StageStatus.SOAKING})
_WATCHED = _UNDER_WAY | {StageStatus.DONE}
_TO_UNDO = frozenset({MemberState.ASSIGNED, MemberState.COMMITTED, MemberState.FAILED})


def plan(state: RolloutState, now: float) -> Plan:
    marks = tuple(_judge_all(state, now))
    judged = after(state, marks, now) if marks else state
    return Plan(actions=(*marks, *_decide(judged, now)))


def _judge_all(state: RolloutState, now: float) -> Iterator[MarkDevice]:
    for member in state.members:
        mark = judge(member, state.seen.get(member.device_id, _NOTHING), state.rollout, now)
        if mark is not None:
            yield mark


def _decide(state: RolloutState, now: float) -> tuple[Action, ...]:
    match state.rollout.status:
        case RolloutStatus.RUNNING:
            return _fail(state, now) or _progress(state, now)
        case RolloutStatus.PAUSED:
            return _fail(state, now)  # a pause holds what is next, never the way back
        case RolloutStatus.UNDOING:
            return _undo(state, now)
        case RolloutStatus.DONE:
            return _reopen(state)
        case RolloutStatus.UNDONE:
            return ()


def _fail(state: RolloutState, now: float) -> tuple[Action, ...]:
    for stage in state.stages:
        if stage.status in _WATCHED:
            gates = measure(state, stage)
            reason = _broken(state, stage, gates, now)
            if reason:
                return _stop(state, FailStage(stage=stage.index, gates=gates, reason=reason))
    return ()


def _broken(state: RolloutState, stage: StageRecord, gates: tuple[GateResult, ...], now: float) -> str:
    """Why the stage cannot pass (any more); empty when it still can."""
    on_figures = stage.status in _UNDER_WAY and not stage.waived
    broken = [gate for gate in gates if gate.passed is False and (on_figures or gate.metric is Metric.UPDATE_SUCCESS)]
    if broken:
        return describe_gates(state, stage, broken)
    late = _without_figures(state, stage, now) if on_figures else ()
    return f"stage {stage.name}: no figures from {names(late)}" if late else ""


def _without_figures(state: RolloutState, stage: StageRecord, now: float) -> tuple[Member, ...]:
    """Devices that committed and then fell silent: without their figures a gate would stay open for ever."""
    spec = state.rollout.spec
    members = members_of(state, stage.index)
    if not wants_figures(spec) or not all_resolved(members):
        return ()
    if stage.soak_since is None:
        last = max((member.resolved_at or 0.0 for member in members), default=now)
        return unmeasured(state, stage, since=0.0) if now >= last + spec.deadline_seconds else ()
    end = stage.soak_since + _spec(state, stage).soak_seconds + spec.deadline_seconds
    return unmeasured(state, stage, since=stage.soak_since) if now >= end else ()


def _stop(state: RolloutState, failed: FailStage) -> tuple[Action, ...]:
    if state.rollout.spec.on_failure is OnFailure.PAUSE:
        return (failed, SetStatus(status=RolloutStatus.PAUSED, reason=failed.reason))
    return (
        failed,
        Quarantine(reason=f"rollout {state.rollout.id}: {failed.reason}"),
        SetStatus(status=RolloutStatus.UNDOING, reason=failed.reason),
    )


def _reopen(state: RolloutState) -> tuple[Action, ...]:
    """A finished rollout whose devices fell back later asks the operator: it never undoes a working fleet on its own."""
    for stage in state.stages:
        gates = measure(state, stage)
        broken = [gate for gate in gates if gate.passed is False and gate.metric is Metric.UPDATE_SUCCESS]
        if stage.status is StageStatus.DONE and broken:
            reason = f"re-opened: {describe_gates(state, stage, broken)}"
            failed = FailStage(stage=stage.index, gates=gates, reason=reason)
            return (failed, SetStatus(status=RolloutStatus.PAUSED, reason=reason))
    return ()


def _undo(state: RolloutState, now: float) -> tuple[Action, ...]:
    touched = [member for member in state.members if member.state in _TO_UNDO and member.assigned_at is not None]
    if touched:
        return tuple(_send_back(state, member) for member in touched[:BATCH])
    deadline = state.rollout.spec.deadline_seconds
    open_ones = [member for member in state.members if member.state is MemberState.UNDOING]
    waited = [
        member
        for member in open_ones
        if not state.seen.get(member.device_id, _NOTHING).revoked and now < (member.undo_at or 0.0) + deadline
    ]
    if waited:
        return ()
    missing = f"; not confirmed back: {names(open_ones)}" if open_ones else ""
    return (SetStatus(status=RolloutStatus.UNDONE, reason=f"{state.rollout.reason}{missing}"),)


def _send_back(state: RolloutState, member: Member) -> Action:
    seen = state.seen.get(member.device_id, _NOTHING)
    if seen.desired_rollout == state.rollout.id:
        return UndoDevice(device_id=member.device_id)
    return MarkDevice(
        device_id=member.device_id,
        state=MemberState.SUPERSEDED,
        outcome=member.outcome,
        reason=member.reason or SUPERSEDED,
    )


def _progress(state: RolloutState, now: float) -> tuple[Action, ...]:
    stage = next((stage for stage in state.stages if stage.status is not StageStatus.DONE), None)
    if stage is None:
        return (SetStatus(status=RolloutStatus.DONE, reason=""),)
    if stage.status is StageStatus.WAITING:
        return () if state.fleet is None else (_start(state, stage, state.fleet),)
    members = members_of(state, stage.index)
    waiting = [member for member in members if member.state is MemberState.WAITING]
    if waiting:
        return tuple(AssignDevice(device_id=member.device_id) for member in waiting[:BATCH])
    gates = measure(state, stage)
    if not all_resolved(members) or not _passed(stage, gates):
        return ()
    return _soak_or_finish(state, stage, gates, now)


def _passed(stage: StageRecord, gates: tuple[GateResult, ...]) -> bool:
    return all(gate.passed for gate in gates if not stage.waived or gate.metric is Metric.UPDATE_SUCCESS)


def _soak_or_finish(
    state: RolloutState, stage: StageRecord, gates: tuple[GateResult, ...], now: float
) -> tuple[Action, ...]:
    soak = _spec(state, stage).soak_seconds
    if stage.soak_since is None and soak > 0:
        return (SoakStage(stage=stage.index),)
    since = stage.soak_since if stage.soak_since is not None else now
    if now < since + soak:
        return ()
    watched = wants_figures(state.rollout.spec) and not stage.waived and stage.soak_since is not None
    if watched and unmeasured(state, stage, since=since):
        return ()
    return (FinishStage(stage=stage.index, gates=gates),)


def _start(state: RolloutState, stage: StageRecord, fleet: tuple[FleetDevice, ...]) -> StartStage:
    """Choose by name, so that the same devices go first every time; a stage's labels choose otherwise.

    A percentage is of the devices that match the stage's labels now, rounded up; those already taken count in it.
    """
    spec = _spec(state, stage)
    pool = [device for device in fleet if matches(spec.labels, device.labels)]
    taken = {member.device_id for member in state.members}
    free = [device for device in pool if device.device_id not in taken and _movable(state, device)]
    free.sort(key=lambda device: (device.name, device.device_id))
    return StartStage(stage=stage.index, fleet=len(pool), devices=tuple(free[: stage_limit(spec, len(pool))]))


def _movable(state: RolloutState, device: FleetDevice) -> bool:
    has_it = device.desired is not None and device.desired.digest == state.rollout.bundle.digest
    return not device.busy and not has_it


def stage_limit(spec: StageSpec, fleet: int) -> int:
    """The most devices the stage may take of a fleet of that size."""
    if spec.count is not None:
        return spec.count
    if spec.percent is not None:
        return math.ceil(round(fleet * spec.percent / 100, 9))
    return fleet


def _spec(state: RolloutState, stage: StageRecord) -> StageSpec:
    return stages_of(state.rollout.spec.stages)[stage.index]


def stages_of(stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
    """The stages in force: without any, one with everything."""
    return stages or (StageSpec(name="all"),)
