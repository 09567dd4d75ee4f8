# SPDX-License-Identifier: Apache-2.0
"""What a served model counts: for ever (metrics, statistics) and since the last look (figures of a window)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from skerry.observe.latency import LatencySketch

LATENCY_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds of the latency histograms, from a microcontroller's budget to a cloud's worst day."""


class Histogram:
    """Fixed upper bounds, as Prometheus has them: a value equal to a bound belongs to it."""

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, values up to it) for every bound; the count itself stands for +Inf."""
        rows, seen = [], 0
        for bound, count in zip(self.bounds, self._counts, strict=False):
            seen += count
            rows.append((bound, seen))
        return rows


class Timing(Struct, frozen=True, kw_only=True):
    """Seconds of one request: waiting for its turn, inside the engine, and from last byte in to answer out."""

    queue: float
    compute: float
    total: float


@dataclass(kw_only=True)
class Window:
    """Since the last report. A request is one the model had to answer; what a client got wrong is counted elsewhere."""

    requests: int = 0
    errors: int = 0
    probes: int = 0
    live: LatencySketch = field(default_factory=LatencySketch)
    probed: LatencySketch = field(default_factory=LatencySketch)

    @property
    def latency(self) -> LatencySketch:
        """Of live requests; of probes when there were none."""
        return self.live if self.live.count else self.probed


class ModelCounters:
    """One per served variant. Not thread-safe: written by the loop thread only."""

    def __init__(self) -> None:
        self.answered = 0
        self.rows = 0
        self.failed: Counter[str] = Counter()  # error code -> requests the server failed
        self.refused: Counter[str] = Counter()  # error code -> requests that were wrong
        self.probes = 0
        self.probe_errors = 0
        self.not_finite = 0  # NaN or infinity in a JSON answer, written as null
        self.total = Histogram()
        self.queue = Histogram()
        self.compute = Histogram()
        self.last_at = 0.0
        self._window = Window()

    def answer(self, timing: Timing, *, rows: int, not_finite: int, at: float) -> None:
        """A request answered with 200; `at` in seconds since the epoch."""
        self.answered += 1
        self.rows += rows
        self.not_finite += not_finite
        self.last_at = at
        self.total.add(timing.total)
        self.queue.add(timing.queue)
        self.compute.add(timing.compute)
        self._window.requests += 1
        self._window.live.add(timing.total)

    def failure(self, code: str) -> None:
        """A valid request the server could not answer."""
        self.failed[code] += 1
        self._window.requests += 1
        self._window.errors += 1

    def refusal(self, code: str) -> None:
        """A request that was wrong: the client's fault, no sign of the model's health."""
        self.refused[code] += 1

    def probe(self, seconds: float, *, right: bool) -> None:
        """A golden sample the runner sent itself; a wrong answer is an error of the window."""
        self.probes += 1
        self._window.probes += 1
        self._window.probed.add(seconds)
        if not right:
            self.probe_errors += 1
            self._window.errors += 1

    def take_window(self) -> Window:
        """What happened since the last call; starts a new window."""
        window, self._window = self._window, Window()
        return window
