# SPDX-License-Identifier: Apache-2.0
"""How `skerry top` looks: as many columns as the window is wide, as many rows as it is high. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from skerry.cli.render import clean
from skerry.cli.top_figures import Row

_GAP: Final = 2
_NAME_WIDTH: Final = 24
_GIB: Final = 1024.0
_HUNDRED: Final = 100
_ROOM_FOR_PROBLEMS: Final = 8  # lines


class Column(NamedTuple):
    """`keep`: when the window is narrow, the highest go first. Numbers stand to the right."""

    header: str
    keep: int
    cell: Callable[[Row], str]
    number: bool = True


def _shortened(text: str, width: int = _NAME_WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def figure(value: float | None) -> str:
    """Three digits that matter: 0.25, 3.4, 120, 23.7k; `-` for what is not known."""
    if value is None or math.isnan(value):
        return "-"
    if value >= 100_000:  # noqa: PLR2004 - steps of the scale
        return f"{value / 1000:.0f}k"
    if value >= 10_000:  # noqa: PLR2004
        return f"{value / 1000:.1f}k"
    if value >= _HUNDRED:
        return f"{value:.0f}"
    if value >= 10:  # noqa: PLR2004
        return f"{value:.1f}"
    return f"{value:.2f}" if value else "0"


def _mib(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / _GIB:.1f} GiB" if value >= _GIB else f"{value:.0f} MiB"


def _bad(row: Row) -> float | None:
    if row.errors_per_second is None or row.refused_per_second is None:
        return None
    return row.errors_per_second + row.refused_per_second


COLUMNS: Final = (
    Column("WORKLOAD", 0, lambda row: _shortened(row.workload), number=False),
    Column("STATE", 1, lambda row: row.state, number=False),
    Column(
        "MODEL", 6, lambda row: _shortened(f"{row.model}:{row.version}" if row.version else row.model), number=False
    ),
    Column("VARIANT", 12, lambda row: _shortened(row.variant, 12), number=False),
    Column("REQ/S", 2, lambda row: figure(row.requests_per_second)),
    Column("P50 MS", 5, lambda row: figure(row.p50_ms if row.p50_ms is not None else row.mean_ms)),
    Column("P95 MS", 3, lambda row: figure(row.p95_ms)),
    Column("P99 MS", 9, lambda row: figure(row.p99_ms)),
    Column("QUEUE MS", 10, lambda row: figure(row.queue_ms)),
    Column("WAITING", 11, lambda row: figure(row.waiting)),
    Column("BATCH", 11, lambda row: figure(row.batch)),
    Column("BAD/S", 4, lambda row: figure(_bad(row))),
    Column("CPU %", 7, lambda row: figure(row.cpu_percent)),
    Column("RSS", 8, lambda row: _mib(row.rss_mib)),
)


def table(rows: Sequence[Row], *, width: int, height: int) -> list[str]:
    """Header and rows, none wider than `width`, at most `height` lines; what is left out at the bottom is counted."""
    cells = {column: [column.header, *(clean(column.cell(row)) for row in rows)] for column in COLUMNS}
    widths = {column: max(map(len, texts)) for column, texts in cells.items()}
    shown = list(COLUMNS)
    while len(shown) > 1 and sum(widths[column] + _GAP for column in shown) - _GAP > width:
        shown.remove(max(shown, key=lambda column: column.keep))
    lines = [
        (" " * _GAP)
        .join(_placed(cells[column][number], widths[column], right=column.number) for column in shown)
        .rstrip()
        for number in range(len(rows) + 1)
    ]
    lines = [line[:width] for line in lines]
    hidden = len(lines) - height
    if hidden > 0:
        lines = [*lines[: max(1, height - 1)], f"... and {hidden + 1} more"[:width]]
    return lines


def _placed(text: str, width: int, *, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def problems(rows: Sequence[Row], *, width: int) -> list[str]:
    return [clean(f"{row.workload}: {row.problem}")[:width] for row in rows if row.problem]


def screen(title: str, rows: Sequence[Row], *, width: int, height: int) -> list[str]:
    """The whole window. Problems stand below the table as far as there is room."""
    if not rows:
        return [clean(title)[:width], "", "no workload here"[:width]]
    below = problems(rows, width=width) if height >= _ROOM_FOR_PROBLEMS else []
    body = table(rows, width=width, height=max(2, height - 2 - bool(below) - min(len(below), height // 4)))
    lines = [clean(title)[:width], "", *body]
    if below:
        lines += ["", *below]
    return lines[:height]
