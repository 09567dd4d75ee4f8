# SPDX-License-Identifier: Apache-2.0
"""What this hub process counts of its own answers."""

from __future__ import annotations

from collections import Counter

from skerry.observe.exposition import Family
from skerry.observe.histogram import Histogram

_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)  # seconds; the last one is a whole long-poll


class Meter:
    """Counts by route template, never by path, so that the number of series stays bounded."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self.in_flight = 0

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        self._answers[method, route, status] += 1
        self._seconds.setdefault(route, Histogram(_BOUNDS)).add(seconds)

    def families(self) -> tuple[Family, ...]:
        answers = tuple(
            ({"method": method, "route": route, "status": str(status)}, float(count))
            for (method, route, status), count in sorted(self._answers.items())
        )
        seconds = tuple(({"route": route}, histogram) for route, histogram in sorted(self._seconds.items()))
        return (
            Family(
                name="skerry_hub_requests_in_flight",
                kind="gauge",
                help="Requests being answered now, long-polls included.",
                samples=(({}, float(self.in_flight)),),
            ),
            Family(
                name="skerry_hub_requests_total", kind="counter", help="Answers by route and status.", samples=answers
            ),
            Family(
                name="skerry_hub_request_seconds",
                kind="histogram",
                help="Time until the answer began, by route.",
                samples=seconds,
            ),
        )
