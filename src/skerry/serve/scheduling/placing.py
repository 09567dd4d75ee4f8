# SPDX-License-Identifier: Apache-2.0
"""Pure: where requests of a model run, from what its runs cost on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from skerry.runtime.costs import Costs

CHEAP_SECONDS: Final = 0.0003
"""A run measured below this may hold up the loop: the hop to a worker would cost about as much."""

WORTH_IT: Final = 0.8
"""A batch pays when a row in it costs less than this share of a run alone."""

MAX_ROWS: Final = 16
_WELL_OVER: Final = 2.0
_TURN_SECONDS: Final = 0.002  # what a batch may hold up the loop
_LATENCY_SHARE: Final = 0.5  # of the latency budget that one batch may take


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`rows` = most rows in one run, 1 = never batched; the reasons are for logs and statistics."""

    inline: bool
    rows: int
    where: str
    batching: str

    def __str__(self) -> str:
        return f"{'inline' if self.inline else 'on a worker'} ({self.where}), {self.batching}"


def misplaced(placement: Placement, observed: float) -> bool:
    """Whether runs that take `observed` seconds belong elsewhere: well over or under the line, so that it is not crossed often."""
    if placement.inline:
        return observed > CHEAP_SECONDS * _WELL_OVER
    return observed < CHEAP_SECONDS / _WELL_OVER


def place(costs: Costs, *, budget: float = 0.0) -> Placement:
    """`budget` is the latency budget in seconds, 0 = none."""
    inline = costs.one <= CHEAP_SECONDS
    relation = "not more" if inline else "more"
    where = f"a run takes {costs.one * 1000:.3f} ms, {relation} than {CHEAP_SECONDS * 1000:g} ms"
    rows, why = _rows(costs, inline=inline, budget=budget)
    return Placement(inline=inline, rows=rows, where=where, batching=why)


def _rows(costs: Costs, *, inline: bool, budget: float) -> tuple[int, str]:
    if costs.why_not:
        return 1, f"no batches: {costs.why_not}"
    share = costs.per_row / costs.one if costs.one else 1.0
    if share >= WORTH_IT:
        return 1, f"no batches: a row in one costs {share:.2f} x a run alone"
    longest = min(_TURN_SECONDS if inline else float("inf"), budget * _LATENCY_SHARE or float("inf"))
    rows = int(min(MAX_ROWS, longest / costs.per_row)) if costs.per_row else MAX_ROWS
    if rows < 2:  # noqa: PLR2004 - one row is no batch
        return 1, f"no batches: two rows take more than {longest * 1000:g} ms"
    return rows, f"batches of up to {rows} rows: a row in one costs {share:.2f} x a run alone"
