# SPDX-License-Identifier: Apache-2.0
"""Small statistics for noisy machines: quantiles, medians over rounds, a bootstrap interval for paired differences. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import Final

from msgspec import Struct

_RESAMPLES: Final = 4000
_COVERAGE: Final = 0.95
_SEED: Final = 20


def quantile(ordered: Sequence[float], share: float) -> float:
    """Lower of two neighbours of sorted values; 0.0 for none."""
    return ordered[int((len(ordered) - 1) * share)] if ordered else 0.0


class Interval(Struct, frozen=True, kw_only=True):
    """A median of paired differences and where 95 % of its resampled values lie."""

    middle: float
    low: float
    high: float

    @property
    def sees_a_difference(self) -> bool:
        return self.low > 0 or self.high < 0


def paired(differences: Sequence[float]) -> Interval:
    """Percentile bootstrap (Efron 1979) of the median: no distribution is assumed, outlying rounds hardly count.

    The same values give the same interval. Fewer than two values give one that sees nothing: from -inf to inf.
    """
    if len(differences) < 2:  # noqa: PLR2004 - one value has no spread
        middle = differences[0] if differences else 0.0
        return Interval(middle=middle, low=float("-inf"), high=float("inf"))
    chance = random.Random(_SEED)  # noqa: S311 - resampling, no secret
    medians = sorted(median(chance.choices(differences, k=len(differences))) for _ in range(_RESAMPLES))
    tail = (1 - _COVERAGE) / 2
    return Interval(middle=median(differences), low=quantile(medians, tail), high=quantile(medians, 1 - tail))
