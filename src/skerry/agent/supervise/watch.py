# SPDX-License-Identifier: Apache-2.0
"""What a serving runner told of itself, added up. Pure: times come in."""

from __future__ import annotations

from collections import deque
from statistics import median

from skerry.agent.reconcile import Soak
from skerry.wire.v1.report import FiguresReport
from skerry.wire.v1.runner import Figures

CRASHES = 3
CRASH_WINDOW = 60.0


class CrashLog:
    """Crashes of one workload. A loop is CRASHES of the same bundle within CRASH_WINDOW seconds, or that many starts of it
    in a row that never came to serve, however long each of them took.
    """

    def __init__(self) -> None:
        self._crashes: deque[tuple[float, str]] = deque(maxlen=64)
        self._never_served: dict[str, int] = {}

    def add(self, at: float, digest: str, *, started: bool = True) -> None:
        """`started`: it had come to serve."""
        self._crashes.append((at, digest))
        if not started:
            self._never_served[digest] = self._never_served.get(digest, 0) + 1

    def served(self, digest: str) -> None:
        """A start of it succeeded."""
        self._never_served.pop(digest, None)

    def recent(self, now: float, digest: str) -> int:
        return sum(1 for at, which in self._crashes if which == digest and now - at <= CRASH_WINDOW)

    def loops(self, now: float, digest: str) -> bool:
        return max(self.recent(now, digest), self._never_served.get(digest, 0)) >= CRASHES

    def pause(self, now: float, digest: str) -> float:
        """Seconds before the next start: none after the first crash, for clients wait; then 0.5, 1 ... 30."""
        recent = self.recent(now, digest)
        return float(min(30.0, 0.25 * 2 ** (recent - 1))) if recent > 1 else 0.0


class SoakWatch:
    """A soaking version since `started` (monotonic seconds)."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._requests = 0
        self._errors = 0
        self._crashes = 0
        self._probe_failures = 0
        self._p95: list[float] = []

    def add(self, figures: Figures) -> None:
        self._requests += figures.requests
        self._errors += figures.errors
        if not figures.requests and figures.errors:  # with no requests, only probes can have failed
            self._probe_failures += figures.errors
        if figures.requests or figures.probes:
            self._p95.append(figures.latency_p95_ms)

    def crashed(self) -> None:
        self._crashes += 1

    def view(self, now: float) -> Soak:
        return Soak(
            elapsed=now - self._started,
            requests=self._requests,
            errors=self._errors,
            latency_p95_ms=median(self._p95) if self._p95 else None,
            crashes=self._crashes,
            probe_failures=self._probe_failures,
        )


class FiguresWindow:
    """Runner windows joined into longer ones, so that an idle or long-offline device does not fill its outbox.

    Counts add up; p50 is weighted by requests, p95 and p99 are the worst window's: an upper bound.
    """

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._windows: list[Figures] = []

    def add(self, figures: Figures, *, workload: str, digest: str, variant: str, rollout: str) -> FiguresReport | None:
        """A report when a window is full."""
        self._windows.append(figures)
        span = sum(window.window_seconds for window in self._windows)
        if span < self._seconds:
            return None
        windows, self._windows = self._windows, []
        requests = sum(window.requests for window in windows)
        probes = sum(window.probes for window in windows)
        speaking = [window for window in windows if (window.requests if requests else window.probes)]
        weights = [window.requests if requests else window.probes for window in speaking]
        weighted = sum(window.latency_p50_ms * weight for window, weight in zip(speaking, weights, strict=True))
        return FiguresReport(
            workload=workload,
            digest=digest,
            window_seconds=span,
            requests=requests,
            errors=sum(window.errors for window in windows),
            latency_p50_ms=weighted / sum(weights) if speaking else 0.0,
            latency_p95_ms=max((window.latency_p95_ms for window in speaking), default=0.0),
            latency_p99_ms=max((window.latency_p99_ms for window in speaking), default=0.0),
            probes=probes,
            variant=variant,
            rollout=rollout,
        )
