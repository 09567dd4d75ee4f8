# SPDX-License-Identifier: Apache-2.0
"""One trial on one device: which runner is tried, what the runner that serves has counted, and both's latencies. Pure but
for what it tells the runners.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from skerry.agent.reconcile import TrialSeen
from skerry.agent.supervise.process import RunnerProcess
from skerry.observe.comparison import Comparison, heard
from skerry.observe.latency import LatencySketch
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.report import TrialReport
from skerry.wire.v1.runner import Figures, TrialCounts

_LEAST_LATENCIES: Final = 10
"""Live requests each version must have answered before their latencies are compared."""

_MILLISECONDS: Final = 1000.0


@dataclass(kw_only=True)
class TrialRun:
    """`started` and every `now` in monotonic seconds. Used with the supervisor's lock held."""

    trial: Trial
    candidate: RunnerProcess
    started: float
    against: str = ""  # digest of the version that serves
    crashed: str = ""
    told: float = 0.0  # when it was last reported
    _by: RunnerProcess | None = None  # who compares now
    _now: Comparison = field(default_factory=Comparison)  # of that one
    _before: Comparison = field(default_factory=Comparison)  # of those that served before it in this trial
    _tried: LatencySketch = field(default_factory=LatencySketch)
    _current: LatencySketch = field(default_factory=LatencySketch)

    def begin(self, serving: RunnerProcess) -> None:
        """`serving` shows requests from now on; it counts from zero."""
        self._before.merge(self._now)
        self._by, self._now = serving, Comparison()
        self.against = serving.launch.digest
        version = self.candidate.launch.bundle.partition(":")[2]
        serving.begin_trial(self.candidate.private_path, version, self.trial)

    def counted(self, by: RunnerProcess, counts: TrialCounts) -> None:
        if by is self._by and counts.path == self.candidate.private_path:
            self._now = heard(counts)

    def measured(self, by: RunnerProcess, figures: Figures) -> None:
        """A window of either version."""
        if by is self.candidate:
            self._tried.merge(LatencySketch(figures.latency))
        elif by is self._by:
            self._current.merge(LatencySketch(figures.latency))

    def seen(self, now: float, *, against: bool) -> TrialSeen:
        total = self._total()
        return TrialSeen(
            elapsed=now - self.started,
            against=against,
            asked=total.asked,
            errors=total.errors,
            compared=total.compared,
            agreed=total.agreed,
            skipped=total.skipped,
            latency_ratio=self._ratio(),
            shift_mean=total.shifts.mean,
            crashed=self.crashed,
        )

    def report(self, now: float, *, finished: bool, reason: str = "", detail: str = "") -> TrialReport:
        total, launch = self._total(), self.candidate.launch
        measured = self._tried.count > 0
        shadow = self.trial.mode is TrialMode.SHADOW
        return TrialReport(
            workload=launch.workload,
            digest=launch.digest,
            mode=self.trial.mode,
            finished=finished,
            seconds=now - self.started,
            asked=total.asked,
            errors=total.errors,
            compared=total.compared,
            agreed=total.agreed,
            dropped=total.dropped,
            flips=dict(total.flips),
            shift_mean=total.shifts.mean if shadow else None,
            shift_p05=total.shifts.quantile(0.05) if shadow else None,
            shift_p95=total.shifts.quantile(0.95) if shadow else None,
            latency_p50_ms=self._tried.quantile(0.5) * _MILLISECONDS if measured else None,
            latency_p95_ms=self._tried.quantile(0.95) * _MILLISECONDS if measured else None,
            latency_ratio=self._ratio(),
            against=self.against,
            variant=launch.variant,
            rollout=launch.rollout,
            reason=reason,
            detail=detail or _problems(total),
        )

    def due(self, now: float, *, every: float) -> TrialReport | None:
        """A report while it is under way, every so many seconds."""
        if now - max(self.told, self.started) < every:
            return None
        self.told = now
        return self.report(now, finished=False)

    def _total(self) -> Comparison:
        total = Comparison()
        total.merge(self._before)
        total.merge(self._now)
        return total

    def _ratio(self) -> float | None:
        if min(self._tried.count, self._current.count) < _LEAST_LATENCIES:
            return None
        current = self._current.quantile(0.95)
        return self._tried.quantile(0.95) / current if current > 0 else None


def _problems(total: Comparison) -> str:
    skipped = [f"{total.skipped} requests of sequences not shown"] if total.skipped else []
    return ", ".join([*(f"{count} x {problem}" for problem, count in sorted(total.problems.items())), *skipped])
