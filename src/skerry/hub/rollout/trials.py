# SPDX-License-Identifier: Apache-2.0
"""Trials in a rollout: what the devices are asked for, what theirs come to together, and the metrics over that.

The limits stand in the gates once: the device judges its own trial by them, and the hub the stage's. A trial that is not
finished shows in the figures but breaks no gate: ten answers are not yet a share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from skerry.hub.domain.rollouts import Member, RolloutState
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.operator import Gate, Metric, RolloutSpec
from skerry.wire.v1.report import TrialReport

MODE: Final = {
    Metric.AGREEMENT: TrialMode.SHADOW,
    Metric.CONFIDENCE_SHIFT: TrialMode.SHADOW,
    Metric.SHADOW_LATENCY_RATIO: TrialMode.SHADOW,
    Metric.SHADOW_ERROR_RATE: TrialMode.SHADOW,
    Metric.CANARY_LATENCY_RATIO: TrialMode.CANARY,
    Metric.CANARY_ERROR_RATE: TrialMode.CANARY,
}
"""Metrics that only a trial measures, and in which mode."""

LONGEST_SECONDS: Final = 7 * 86_400.0
MOST_SAMPLES: Final = 10_000_000


def trial_in_force(spec: RolloutSpec) -> Trial | None:
    """The trial devices are asked for: the gates on its figures are its limits."""
    trial = spec.trial
    for gate in spec.gates:
        if trial is not None and MODE.get(gate.metric) is trial.mode:
            trial = _limited(trial, gate)
    return trial


def _limited(trial: Trial, gate: Gate) -> Trial:
    if gate.metric is Metric.AGREEMENT:
        return trial if gate.min is None else replace(trial, min_agreement=gate.min)
    if gate.max is None:
        return trial
    match gate.metric:
        case Metric.CONFIDENCE_SHIFT:
            return replace(trial, max_confidence_shift=gate.max)
        case Metric.SHADOW_LATENCY_RATIO | Metric.CANARY_LATENCY_RATIO:
            return replace(trial, max_latency_ratio=gate.max)
        case _:
            return replace(trial, max_error_rate=gate.max)


def trial_problem(spec: RolloutSpec) -> str:
    """What is wrong with a spec's trial in itself, or with its gates on one; empty when nothing is."""
    trial = spec.trial
    for gate in spec.gates:
        if gate.metric in MODE and (trial is None or trial.mode is not MODE[gate.metric]):
            return f"gate {gate.metric} needs a trial by {MODE[gate.metric]}: nothing else measures it"
    if trial is None:
        return ""
    limits = (trial.min_agreement, trial.max_error_rate, trial.max_latency_ratio or 0, trial.max_confidence_shift or 0)
    problems = (
        "" if 0 < trial.percent <= 100 else "percent must be above 0 and at most 100",  # noqa: PLR2004 - percent
        "" if 0 <= trial.seconds <= trial.longest_seconds <= LONGEST_SECONDS else "seconds: 0 up to longest_seconds",
        "" if 1 <= trial.min_samples <= MOST_SAMPLES else f"min_samples: 1 to {MOST_SAMPLES}",
        "" if all(math.isfinite(limit) and limit >= 0 for limit in limits) else "a limit is below 0 or no number",
        "" if trial.longest_seconds < spec.deadline_seconds else "longest_seconds must end before deadline_seconds",
    )
    return next((f"trial: {problem}" for problem in problems if problem), "")


def trial_of(state: RolloutState, member: Member) -> TrialReport | None:
    """What the member last reported of its trial of the new digest for this rollout, of the mode asked for."""
    seen, trial = state.seen.get(member.device_id), state.rollout.spec.trial
    if seen is None or seen.trial is None or trial is None or member.assigned_at is None:
        return None
    report = seen.trial.report
    ours = report.rollout == state.rollout.id and report.mode is trial.mode
    return report if ours and report.digest == state.rollout.bundle.digest else None


def measured(state: RolloutState, metric: Metric, members: Iterable[Member]) -> float | None:
    """A metric over what these members have reported; None when nothing was."""
    reports = [report for member in members if (report := trial_of(state, member)) is not None]
    return _OVER[metric](reports)


def finished(state: RolloutState, members: Iterable[Member]) -> tuple[Member, ...]:
    """Those whose trial is over."""
    return tuple(member for member in members if (report := trial_of(state, member)) is not None and report.finished)


def _agreement(reports: Sequence[TrialReport]) -> float | None:
    compared = sum(report.compared for report in reports)
    return sum(report.agreed for report in reports) / compared if compared > 0 else None


def _shift(reports: Sequence[TrialReport]) -> float | None:
    """The worst device's: shifts up on one and down on another must not make up for each other."""
    return max((abs(report.shift_mean) for report in reports if report.shift_mean is not None), default=None)


def _latency_ratio(reports: Sequence[TrialReport]) -> float | None:
    return max((report.latency_ratio for report in reports if report.latency_ratio is not None), default=None)


def _error_rate(reports: Sequence[TrialReport]) -> float | None:
    asked = sum(report.asked for report in reports)
    return sum(report.errors for report in reports) / asked if asked > 0 else None


_OVER: Final[dict[Metric, Callable[[Sequence[TrialReport]], float | None]]] = {
    Metric.AGREEMENT: _agreement,
    Metric.CONFIDENCE_SHIFT: _shift,
    Metric.SHADOW_LATENCY_RATIO: _latency_ratio,
    Metric.SHADOW_ERROR_RATE: _error_rate,
    Metric.CANARY_LATENCY_RATIO: _latency_ratio,
    Metric.CANARY_ERROR_RATE: _error_rate,
}
