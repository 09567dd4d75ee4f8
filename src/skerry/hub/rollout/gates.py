# SPDX-License-Identifier: Apache-2.0
"""Gates: what a stage must measure to pass.

- update_success: committed / resolved of the stage. Without such a gate in the spec its minimum is 1: one failed device
  stops the rollout. It fails as soon as it cannot be met any more, even if every device still open succeeded.
- latency_p95_ms: the worst of the last windows the stage's devices reported for the new digest.
- error_rate: errors / requests over those windows.
The gates on figures fail as soon as they are broken, and pass only when every committed device has reported a window.
- the metrics of a trial (rollout/trials.py): broken by finished trials alone; a stage whose devices have all come to an end
  without anything measured has not passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from skerry.hub.domain.rollouts import Member, MemberState, Outcome, RolloutState, StageRecord
from skerry.hub.rollout import trials
from skerry.wire.v1.operator import Gate, GateResult, Metric, RolloutSpec
from skerry.wire.v1.report import FiguresReport

EVERY_DEVICE = Gate(metric=Metric.UPDATE_SUCCESS, min=1.0)
_FIGURES = frozenset({Metric.LATENCY_P95_MS, Metric.ERROR_RATE})


def gates_of(spec: RolloutSpec) -> tuple[Gate, ...]:
    """The gates in force: those of the spec, and that every device must succeed when it says nothing about success."""
    if any(gate.metric is Metric.UPDATE_SUCCESS for gate in spec.gates):
        return spec.gates
    return (EVERY_DEVICE, *spec.gates)


def wants_figures(spec: RolloutSpec) -> bool:
    return any(gate.metric in _FIGURES for gate in spec.gates)


def members_of(state: RolloutState, stage: int) -> tuple[Member, ...]:
    return tuple(member for member in state.members if member.stage == stage)


def measure(state: RolloutState, stage: StageRecord) -> tuple[GateResult, ...]:
    """Each gate in force against what the stage's devices have reported so far; `passed` is None while it is open."""
    members = members_of(state, stage.index)
    windows = {member.device_id: window for member in members if (window := window_of(state, member)) is not None}
    return tuple(_result(gate, state, stage, members, windows) for gate in gates_of(state.rollout.spec))


def window_of(state: RolloutState, member: Member) -> FiguresReport | None:
    """The last window the member reported for the new digest since it was told, if anything was measured in it."""
    seen = state.seen.get(member.device_id)
    if seen is None or seen.figures is None or member.assigned_at is None:
        return None
    latest, figures = seen.figures, seen.figures.figures
    ours = figures.rollout == state.rollout.id or (not figures.rollout and latest.received >= member.assigned_at)
    counted = figures.requests + figures.errors + figures.probes > 0
    return figures if ours and counted and figures.digest == state.rollout.bundle.digest else None


def unmeasured(state: RolloutState, stage: StageRecord, *, since: float) -> tuple[Member, ...]:
    """Committed members that have not reported a window received at or after `since`."""
    return tuple(
        member
        for member in members_of(state, stage.index)
        if member.state is MemberState.COMMITTED and not _measured_since(state, member, since)
    )


def _measured_since(state: RolloutState, member: Member, since: float) -> bool:
    latest = state.seen[member.device_id].figures if member.device_id in state.seen else None
    return latest is not None and latest.received >= since and window_of(state, member) is not None


def _result(
    gate: Gate,
    state: RolloutState,
    stage: StageRecord,
    members: Sequence[Member],
    windows: dict[str, FiguresReport],
) -> GateResult:
    if gate.metric is Metric.UPDATE_SUCCESS:
        return _success(gate, members)
    if gate.metric in trials.MODE:
        return _trial(gate, state, members)
    measured = _latency(windows.values()) if gate.metric is Metric.LATENCY_P95_MS else _error_rate(windows.values())
    complete = not unmeasured(state, stage, since=0.0) and all_resolved(members)
    return _judged(gate, measured, complete=complete)


def _trial(gate: Gate, state: RolloutState, members: Sequence[Member]) -> GateResult:
    """What is under way is shown; it is judged when it is over."""
    over = trials.finished(state, members)
    result = _judged(gate, trials.measured(state, gate.metric, over or members), complete=False)
    committed = {member.device_id for member in members if member.outcome is Outcome.COMMITTED}
    if committed and all_resolved(members):
        tried = committed <= {member.device_id for member in over} and result.measured is not None
        return replace(result, passed=tried and result.passed is not False)
    return result if over else replace(result, passed=None)


def _success(gate: Gate, members: Sequence[Member]) -> GateResult:
    committed = sum(member.outcome is Outcome.COMMITTED for member in members)
    failed = sum(member.outcome is Outcome.FAILED for member in members)
    measured = committed / (committed + failed) if committed + failed else None
    refused = sum(member.outcome is Outcome.FAILED and not member.accepted for member in members)
    best = (len(members) - refused) / len(members) if members else 1.0
    passed = False if best < (gate.min or 0.0) else (True if all_resolved(members) else None)
    return GateResult(metric=gate.metric, measured=measured, min=gate.min, max=gate.max, passed=passed)


def all_resolved(members: Sequence[Member]) -> bool:
    return all(member.outcome is not Outcome.PENDING for member in members)


def _latency(windows: Iterable[FiguresReport]) -> float | None:
    return max((window.latency_p95_ms for window in windows), default=None)


def _error_rate(windows: Iterable[FiguresReport]) -> float | None:
    """An error without a counted request (the request never got as far) counts as a request that failed."""
    totals = [(window.errors, max(window.requests, window.errors)) for window in windows]
    if not totals:
        return None
    requests = sum(requests for _, requests in totals)
    return sum(errors for errors, _ in totals) / requests if requests else 0.0


def _judged(gate: Gate, measured: float | None, *, complete: bool) -> GateResult:
    broken = measured is not None and (
        (gate.max is not None and measured > gate.max) or (gate.min is not None and measured < gate.min)
    )
    passed = False if broken else (True if complete else None)
    return GateResult(metric=gate.metric, measured=measured, min=gate.min, max=gate.max, passed=passed)
