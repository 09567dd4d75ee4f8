# SPDX-License-Identifier: Apache-2.0
"""A clock that moves only when told."""

from __future__ import annotations


class VirtualClock:
    """`now` starts at a fixed instant; `advance` moves both clocks, `jump` only the wall clock (as an NTP step would)."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        self._now += seconds
