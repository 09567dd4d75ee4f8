# SPDX-License-Identifier: Apache-2.0
"""A mergeable sketch of durations with a bounded relative error (the bucket scheme of DDSketch, Masson et al., VLDB 2019).

A value v > 0 falls into bucket ceil(log(v) / log(g)) with g = (1 + a) / (1 - a); every value of a bucket is within the
share `a` of the bucket's middle, so a quantile is at most `a` off the exact one, whatever the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

ACCURACY: Final = 0.01
"""Relative error of every quantile."""

SMALLEST: Final = (
    1e-7  # seconds; anything shorter counts as this. Keeps the number of buckets below 1,300 up to one hour
)
LOG_GAMMA: Final = math.log((1 + ACCURACY) / (1 - ACCURACY))


def _bucket(seconds: float) -> int:
    return math.ceil(math.log(max(seconds, SMALLEST)) / LOG_GAMMA)


def _middle(bucket: int) -> float:
    return math.exp(bucket * LOG_GAMMA) * (1 - ACCURACY)


class LatencySketch:
    """Durations in seconds. Merging two sketches equals having added all values to one."""

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        """With `buckets` of another one, whose total is then known only as well as a quantile is."""
        self._buckets: dict[int, int] = dict(buckets or {})
        self.count = sum(self._buckets.values())
        self.total = sum(_middle(bucket) * count for bucket, count in self._buckets.items())

    @property
    def buckets(self) -> Mapping[int, int]:
        """Bucket -> values in it: the whole sketch, to be sent."""
        return self._buckets

    def add(self, seconds: float) -> None:
        """Negative durations (a clock that stepped) count as the smallest one. Raises ValueError for NaN and infinity."""
        if not math.isfinite(seconds):
            raise ValueError(f"not a duration: {seconds}")
        bucket = _bucket(seconds)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += max(seconds, 0.0)

    def add_buckets(self, buckets: Mapping[int, int], total: float) -> None:
        """Many durations at once: how many fell into each bucket, and their sum in seconds."""
        for bucket, count in buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
            self.count += count
        self.total += total

    def merge(self, other: LatencySketch) -> None:
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds (0 <= q <= 1, lower of two neighbours); 0.0 when nothing was added."""
        if not 0 <= q <= 1:
            raise ValueError(f"not a quantile: {q}")
        rank = q * (self.count - 1)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen > rank:
                return _middle(bucket)
        return 0.0

    def quantile_ms(self, q: float) -> float:
        return self.quantile(q) * 1000.0
