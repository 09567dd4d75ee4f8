# SPDX-License-Identifier: Apache-2.0
"""Reasons in words an operator can act on."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.hub.domain.rollouts import Member, Outcome, RolloutState, StageRecord
from skerry.hub.rollout.gates import members_of, window_of
from skerry.hub.rollout.trials import MODE, trial_of
from skerry.hub.rollout.trials import measured as measured_in_trials
from skerry.wire.v1.operator import GateResult, Metric

_SHOWN = 5


def names(members: Sequence[Member]) -> str:
    shown = ", ".join(member.name for member in members[:_SHOWN])
    return f"{shown} and {len(members) - _SHOWN} more" if len(members) > _SHOWN else shown


def describe_gates(state: RolloutState, stage: StageRecord, broken: Sequence[GateResult]) -> str:
    """e.g. `stage canary: update_success 0.5 < 1: edge-3 (undone: SKY-1005)`."""
    return "; ".join(f"stage {stage.name}: {_describe(state, stage, gate)}" for gate in broken)


def _describe(state: RolloutState, stage: StageRecord, gate: GateResult) -> str:
    members = members_of(state, stage.index)
    if gate.measured is None and gate.metric in MODE:
        return f"{gate.metric} was not measured: {_culprits(state, members, gate)}"
    measured = "nothing" if gate.measured is None else f"{gate.measured:.4g}"
    low = gate.min is not None and (gate.measured is None or gate.measured < gate.min)
    bound = f"< {gate.min:.4g}" if low else f"> {gate.max:.4g}" if gate.max is not None else "cannot be met"
    return f"{gate.metric} {measured} {bound}: {_culprits(state, members, gate)}"


def _culprits(state: RolloutState, members: Sequence[Member], gate: GateResult) -> str:
    if gate.metric is Metric.UPDATE_SUCCESS:
        failed = [member for member in members if member.outcome is Outcome.FAILED and not member.accepted]
        shown = ", ".join(f"{member.name} ({member.reason})" for member in failed[:_SHOWN])
        return f"{shown} and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else shown
    return names([member for member in members if _is_culprit(state, member, gate)])


def _is_culprit(state: RolloutState, member: Member, gate: GateResult) -> bool:
    if gate.metric in MODE:
        return _fell_short(state, member, gate)
    window = window_of(state, member)
    if window is None:
        return False
    if gate.metric is Metric.LATENCY_P95_MS:
        return gate.max is None or window.latency_p95_ms > gate.max
    return window.errors > 0


def _fell_short(state: RolloutState, member: Member, gate: GateResult) -> bool:
    value = measured_in_trials(state, gate.metric, (member,))
    if value is None:  # it went on without a trial: that is what is wrong, when nobody had one
        return gate.measured is None and trial_of(state, member) is None
    return (gate.max is not None and value > gate.max) or (gate.min is not None and value < gate.min)
