# SPDX-License-Identifier: Apache-2.0
"""What a trial counts while a new version is shown the requests of the current one. Pure; nothing of any payload in it.

Everything adds up: two runners' counts merged are the counts of one that had seen both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from itertools import islice
from typing import Final

from skerry.wire.v1.runner import TrialCounts

FLIPS_KEPT: Final = 32
"""Pairs of classes counted one by one; what flips besides is counted together."""

OTHER_FLIPS: Final = "other"

_PAIR: Final = 160  # characters
_SMALLEST: Final = 1e-4  # a shift below it is none
_LARGEST: Final = 1e6
_LOG_GAMMA: Final = math.log(1.1 / 0.9)  # every shift is within a tenth of its bucket's middle


class Problem(StrEnum):
    """Why a request shown to the new version was not answered by it."""

    TIMEOUT = "timeout"
    GONE = "gone"  # no connection, or it broke
    FAILED = "failed"  # it answered with 5xx
    REFUSED = "refused"  # it answered with 4xx what the current version answers
    UNREADABLE = "unreadable"  # its answer is none, or has other outputs


class Share:
    """Chooses `percent` of the requests, evenly spread: no chance in it, so ten requests at 10 % are exactly one chosen."""

    def __init__(self, percent: float) -> None:
        self._step = percent / 100.0
        self._sum = 0.0

    def take(self) -> bool:
        self._sum += self._step
        if self._sum < 1.0 - 1e-9:
            return False
        self._sum -= 1.0
        return True


class Shifts:
    """A sketch of differences, either way, with a bounded relative error; at most some 230 buckets a side."""

    def __init__(self, buckets: Mapping[int, int] | None = None, total: float = 0.0) -> None:
        """From what `buckets` and `total` of another one were."""
        self.buckets: Counter[int] = Counter(buckets)
        self.total = total

    @property
    def count(self) -> int:
        return self.buckets.total()

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def add(self, shift: float) -> None:
        """One that is not finite is as large as a shift can be."""
        size = _LARGEST if math.isnan(shift) else min(abs(shift), _LARGEST)
        bucket = 1 + math.ceil(math.log(size / _SMALLEST) / _LOG_GAMMA) if size >= _SMALLEST else 0
        self.buckets[bucket if shift >= 0 else -bucket] += 1
        self.total += math.copysign(size, shift)

    def merge(self, other: Shifts) -> None:
        self.buckets += other.buckets
        self.total += other.total

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0 <= q <= 1, lower of two neighbours); None when nothing was added."""
        rank, seen = q * (self.count - 1), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen > rank:
                return _middle(bucket)
        return None


def _middle(bucket: int) -> float:
    if not bucket:
        return 0.0
    size = _SMALLEST * math.exp((abs(bucket) - 1) * _LOG_GAMMA) * 0.9
    return math.copysign(size, bucket)


class Comparison:
    """`asked` and `errors` count requests, `compared` and `agreed` answers: the rows of a request, where it has any.

    `skipped` requests belong to a sequence: the answer depends on earlier ones, which the new version has not seen.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.dropped = 0
        self.skipped = 0
        self.compared = 0
        self.agreed = 0
        self.problems: Counter[Problem] = Counter()
        self.flips: Counter[str] = Counter()
        self.shifts = Shifts()

    @property
    def errors(self) -> int:
        return self.problems.total()

    def answered(self) -> None:
        """The new version answered what it was asked."""
        self.asked += 1

    def failed(self, problem: Problem) -> None:
        self.asked += 1
        self.problems[problem] += 1

    def add_rows(self, *, compared: int, agreed: int) -> None:
        self.compared += compared
        self.agreed += agreed

    def flip(self, was: str, now: str) -> None:
        """The class of an answer changed."""
        pair = f"{was} > {now}"
        self.flips[pair if pair in self.flips or len(self.flips) < FLIPS_KEPT else OTHER_FLIPS] += 1

    def merge(self, other: Comparison) -> None:
        self.asked += other.asked
        self.dropped += other.dropped
        self.skipped += other.skipped
        self.compared += other.compared
        self.agreed += other.agreed
        self.problems += other.problems
        for pair, count in other.flips.items():
            self.flips[pair if pair in self.flips or len(self.flips) < FLIPS_KEPT else OTHER_FLIPS] += count
        self.shifts.merge(other.shifts)

    def told(self, path: str) -> TrialCounts:
        """As the runner tells its agent."""
        return TrialCounts(
            path=path,
            asked=self.asked,
            dropped=self.dropped,
            skipped=self.skipped,
            compared=self.compared,
            agreed=self.agreed,
            problems={str(problem): count for problem, count in self.problems.items()},
            flips=dict(self.flips),
            shift_total=self.shifts.total,
            shifts=dict(self.shifts.buckets),
        )


def heard(counts: TrialCounts) -> Comparison:
    """As the agent hears it, who does not trust it: no part is larger than its whole, and there are only so many names.
    Problems of a newer runner's vocabulary count as failed.
    """
    made = Comparison()
    made.asked, made.dropped, made.skipped = counts.asked, counts.dropped, counts.skipped
    made.compared, made.agreed = counts.compared, min(counts.agreed, counts.compared)
    left = counts.asked
    for word, said in counts.problems.items():
        count = min(said, left)
        left -= count
        made.problems[Problem(word) if word in set(Problem) else Problem.FAILED] += count
    made.flips.update({pair[:_PAIR]: count for pair, count in islice(counts.flips.items(), FLIPS_KEPT + 1)})
    made.shifts = Shifts(counts.shifts, counts.shift_total)
    return made
