# SPDX-License-Identifier: Apache-2.0
"""What an operator may do with a rollout: create, pause, resume, undo."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum

from skerry.bundle.rules import name_problem
from skerry.hub.domain.catalogue import BundleRecord
from skerry.hub.domain.rollouts import MemberState, RolloutState
from skerry.hub.domain.verdict import Allowed, Refused, Verdict
from skerry.hub.rollout.actions import AcceptFailure, Action, Plan, Quarantine, SetStatus, WaiveStage
from skerry.hub.rollout.trials import trial_problem
from skerry.wire.v1.operator import Gate, Metric, RolloutSpec, RolloutStatus, StageSpec, StageStatus

MAX_STAGES = 200
MAX_GATES = 20


class Verb(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    UNDO = "undo"


_FROM = {
    Verb.PAUSE: frozenset({RolloutStatus.RUNNING}),
    Verb.RESUME: frozenset({RolloutStatus.PAUSED}),
    Verb.UNDO: frozenset({RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.DONE}),
}


def command(state: RolloutState, verb: Verb, *, actor: str) -> Plan | Refused:
    """The actions of an operator's verb on the rollout as it is.

    Resuming after a failure is a decision on record: the failures so far are accepted and the failed stage's gates on
    figures are waived; devices that fail later count. Undoing a rollout that failed quarantines its digest.
    """
    status = state.rollout.status
    if status not in _FROM[verb]:
        return Refused(reason=f"it is {status}")
    match verb:
        case Verb.PAUSE:
            return Plan(actions=(SetStatus(status=RolloutStatus.PAUSED, reason=f"paused by {actor}"),))
        case Verb.RESUME:
            return Plan(actions=(*_accepted(state), SetStatus(status=RolloutStatus.RUNNING, reason="")))
        case Verb.UNDO:
            return Plan(actions=tuple(_undone(state, actor)))


def _accepted(state: RolloutState) -> Iterator[Action]:
    failed = {stage.index for stage in state.stages if stage.status is StageStatus.FAILED}
    for index in sorted(failed):
        yield WaiveStage(stage=index)
    for member in state.members:
        if member.stage in failed and member.state is MemberState.FAILED and not member.accepted:
            yield AcceptFailure(device_id=member.device_id)


def _undone(state: RolloutState, actor: str) -> Iterator[Action]:
    failed = any(stage.status is StageStatus.FAILED for stage in state.stages)
    reason = f"undone by {actor}"
    if failed:
        reason = f"{reason} after: {state.rollout.reason}"
        yield Quarantine(reason=f"rollout {state.rollout.id}: {state.rollout.reason}")
    yield SetStatus(status=RolloutStatus.UNDOING, reason=reason)


def joined_selector(fleet: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str] | Refused:
    """Devices must match both; two values for one label would match none, and must not silently widen either."""
    for key, value in own.items():
        if fleet.get(key, value) != value:
            return Refused(reason=f"label {key} is {fleet[key]} in the fleet but {value} in the selector")
    return {**fleet, **own}


def decide_create(
    spec: RolloutSpec, bundle: BundleRecord, *, devices: frozenset[str], active: Mapping[str, frozenset[str]]
) -> Verdict:
    """May a rollout of `bundle` to `devices` begin while each rollout in `active` (id -> its devices) holds the same workload?"""
    problem = spec_problem(spec)
    if problem:
        return Refused(reason=problem)
    if bundle.quarantined is not None:
        return Refused(reason=f"bundle {bundle.ref.name} is quarantined: {bundle.quarantine_reason}")
    if not devices:
        return Refused(reason="no device matches")
    for rollout_id, held in active.items():
        shared = devices & held
        if shared:
            return Refused(
                reason=f"rollout {rollout_id} holds workload {spec.workload} of {len(shared)} of these devices"
            )
    return Allowed()


def spec_problem(spec: RolloutSpec) -> str:
    """What is wrong with a spec in itself; empty when nothing is."""
    names = [stage.name for stage in spec.stages]
    problems = (
        _workload_problem(spec.workload),
        "" if _positive(spec.deadline_seconds) else "deadline_seconds must be above 0",
        "" if _not_negative(spec.device_soak_seconds) else "device_soak_seconds must not be below 0",
        "" if len(names) <= MAX_STAGES else f"at most {MAX_STAGES} stages",
        "" if len(spec.gates) <= MAX_GATES else f"at most {MAX_GATES} gates",
        "" if len(set(names)) == len(names) else "two stages have the same name",
        *map(_stage_problem, spec.stages),
        *map(_gate_problem, spec.gates),
        trial_problem(spec),
    )
    return next((problem for problem in problems if problem), "")


def _workload_problem(name: str) -> str:
    problem = name_problem(name) if name else "is empty"
    return f"workload {problem}" if problem else ""


def _stage_problem(stage: StageSpec) -> str:
    if not stage.name:
        return "a stage has no name"
    if stage.count is not None and stage.percent is not None:
        return f"stage {stage.name} has both count and percent"
    if stage.count is not None and stage.count < 1:
        return f"stage {stage.name}: count must be at least 1"
    if stage.percent is not None and not 0 < stage.percent <= 100:  # noqa: PLR2004 - percent
        return f"stage {stage.name}: percent must be above 0 and at most 100"
    if not _not_negative(stage.soak_seconds):
        return f"stage {stage.name}: soak_seconds must not be below 0"
    return ""


def _gate_problem(gate: Gate) -> str:
    bounds = [bound for bound in (gate.min, gate.max) if bound is not None]
    if not bounds or not all(math.isfinite(bound) for bound in bounds):
        return f"gate {gate.metric} needs a finite min or max"
    if gate.metric is not Metric.UPDATE_SUCCESS:
        return ""
    if gate.min is None or gate.max is not None or not 0 <= gate.min <= 1:
        return "gate update_success needs a min between 0 and 1, and no max"
    return ""


def _positive(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds > 0


def _not_negative(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
