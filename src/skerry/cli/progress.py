# SPDX-License-Identifier: Apache-2.0
"""Progress of transfers on stderr: a Rich bar on a terminal, a line now and then everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from skerry.cli.render import colourful

Advance = Callable[[int], None]

_QUARTERS = 4
_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000


def size_text(size: float) -> str:
    """Bytes in decimal units, as disks and networks count: 412 B, 1.2 MB."""
    for unit in _UNITS[:-1]:
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == "B" or size >= _STEP / 10 else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"


@contextmanager
def transfer(label: str, total: int) -> Iterator[Advance]:
    """Yields a function to call with each number of bytes moved."""
    if colourful(sys.stderr):
        with _bar(label, total) as advance:
            yield advance
    else:
        lines = PlainProgress(label, total)
        yield lines.advance
        lines.finish()


class PlainProgress:
    """At most a line a quarter, and none for the first and last: a log stays readable."""

    def __init__(self, label: str, total: int, *, say: Callable[[str], None] | None = None) -> None:
        self._label = label
        self._total = total
        self._moved = 0
        self._said = 0
        self._say = say or (lambda line: click.echo(line, err=True))

    def advance(self, size: int) -> None:
        self._moved += size
        quarter = self._moved * _QUARTERS // self._total if self._total else _QUARTERS
        if self._said < quarter < _QUARTERS:
            self._said = quarter
            self._say(f"{self._label}: {quarter * 100 // _QUARTERS}% of {size_text(self._total)}")

    def finish(self) -> None:
        self._say(f"{self._label}: {size_text(self._moved)} done")


@contextmanager
def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda size: bar.advance(task, size)
