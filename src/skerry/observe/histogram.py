# SPDX-License-Identifier: Apache-2.0
"""Histograms with fixed upper bounds, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

LATENCY_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds of the latency histograms, from a microcontroller's budget to a cloud's worst day."""


class Histogram:
    """A value equal to a bound belongs to it."""

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    def add_counts(self, counts: Sequence[int], total: float) -> None:
        """Many values at once: how many fell to each bound and above the last, and their sum."""
        self._counts = [have + more for have, more in zip(self._counts, counts, strict=True)]
        self.count += sum(counts)
        self.total += total

    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, values up to it) for every bound; the count itself stands for +Inf."""
        rows, seen = [], 0
        for bound, count in zip(self.bounds, self._counts, strict=False):
            seen += count
            rows.append((bound, seen))
        return rows
