# SPDX-License-Identifier: Apache-2.0
"""What a served model counts: for ever (metrics, statistics) and since the last look (figures of a window).

Answers are noted as they come and sorted into histograms many at a time: one by one that would cost a tenth of a small model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from skerry.observe.histogram import Histogram
from skerry.observe.latency import LOG_GAMMA, SMALLEST, LatencySketch

BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
FINE_BOUNDS: Final = (
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0,
)  # fmt: skip
"""Upper bounds in seconds for what should take microseconds: reading a request and writing its answer."""

_NOTES: Final = 1024


Times = tuple[float, float, float, float, int]
"""Seconds of one request: from its last byte to its answer, waiting for its turn, inside the engine, reading and writing it;
and the number of requests that shared its run. A plain tuple, because one is made for every request."""


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
        self.runs = 0  # of the engine; a batch is one
        self.last_at = 0.0
        self._total = Histogram()
        self._queue = Histogram()
        self._compute = Histogram()
        self._codec = Histogram(FINE_BOUNDS)
        self._batch = Histogram(BATCH_BOUNDS)
        self._notes: list[Times] = []
        self._window = Window()

    def answer(self, times: Times, *, rows: int, at: float, not_finite: int = 0) -> None:
        """A request answered with 200; `at` in seconds since the epoch."""
        self.answered += 1
        self.rows += rows
        self.not_finite += not_finite
        self.last_at = at
        self._notes.append(times)
        if len(self._notes) >= _NOTES:
            self._sort()

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
        self._sort()
        window, self._window = self._window, Window()
        return window

    @property
    def total(self) -> Histogram:
        self._sort()
        return self._total

    @property
    def queue(self) -> Histogram:
        self._sort()
        return self._queue

    @property
    def compute(self) -> Histogram:
        self._sort()
        return self._compute

    @property
    def codec(self) -> Histogram:
        self._sort()
        return self._codec

    @property
    def batch(self) -> Histogram:
        """Requests per run, once for every request."""
        self._sort()
        return self._batch

    def _sort(self) -> None:
        if not self._notes:
            return
        notes, self._notes = np.array(self._notes, np.float64).T, []
        for histogram, values in zip(
            (self._total, self._queue, self._compute, self._codec, self._batch), notes, strict=True
        ):
            _add(histogram, values)
        self._window.requests += notes.shape[1]
        _sketch(self._window.live, notes[0])


Values = np.ndarray[Any, np.dtype[np.float64]]


def _add(histogram: Histogram, values: Values) -> None:
    places = np.searchsorted(histogram.bounds, values, side="left")
    counts = np.bincount(places, minlength=len(histogram.bounds) + 1)
    histogram.add_counts(counts.tolist(), float(values.sum()))


def _sketch(sketch: LatencySketch, seconds: Values) -> None:
    buckets = np.ceil(np.log(np.maximum(seconds, SMALLEST)) / LOG_GAMMA).astype(np.int64)
    found, counts = np.unique(buckets, return_counts=True)
    sketch.add_buckets(dict(zip(found.tolist(), counts.tolist(), strict=True)), float(np.maximum(seconds, 0.0).sum()))
