# SPDX-License-Identifier: Apache-2.0
"""Output of lists and single things: `-o table|wide|json|yaml|name`.

Tables are aligned text, on a terminal with colours: awk and grep see what people see, and however narrow the window is, an
id stays in one piece that can be copied. Programs use `-o json`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TextIO, TypeVar

import click
import msgspec

from skerry.cli.plain import plain

T = TypeVar("T")

# Never the only sign: the word itself is always there.
_COLOURS = {
    **dict.fromkeys(("committed", "done", "passed", "online", "ok"), "green"),
    **dict.fromkeys(("failed", "undone", "refused", "fell-back", "revoked", "broken", "quarantined"), "red"),
    **dict.fromkeys(("paused", "undoing", "soaking", "offline", "silent", "warning"), "yellow"),
    **dict.fromkeys(("running", "fetching", "self-testing", "switching", "assigned"), "cyan"),
}


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, kw_only=True)
class Column(Generic[T]):
    header: str
    cell: Callable[[T, float], str]  # the thing and `now`
    wide: bool = False  # only with -o wide


@dataclass(frozen=True, kw_only=True)
class Listing(Generic[T]):
    """How one kind of thing is listed."""

    kind: str
    columns: tuple[Column[T], ...]
    name: Callable[[T], str]
    empty: str  # what to say, and do next, when there is none


def colourful(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """What does not print shown as `?`: names and details come from devices and must not drive the terminal, nor turn the
    direction of its text round.
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def show_list(items: Sequence[T], listing: Listing[T], *, output: Output, now: float) -> None:
    if output in {Output.JSON, Output.YAML}:
        dump(items, output)
    elif output is Output.NAME:
        for item in items:
            click.echo(f"{listing.kind}/{clean(listing.name(item))}")
    elif items:
        columns = [column for column in listing.columns if output is Output.WIDE or not column.wide]
        rows = [[clean(column.cell(item, now)) for column in columns] for item in items]
        table([column.header for column in columns], rows)
    else:
        click.echo(listing.empty, err=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not colourful(sys.stdout):
        click.echo("\n".join(aligned([headers, *rows])))
        return
    header, *lines = aligned([headers, *rows], paint=styled)
    click.echo("\n".join([click.style(header, bold=True), *lines]))


def aligned(rows: Sequence[Sequence[str]], *, gap: str = "  ", paint: Callable[[str], str] = str) -> list[str]:
    """Rows as lines with columns of equal width; no trailing blanks. `paint` adds what takes no room."""
    lined = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lined, strict=True)]
    return [
        gap.join(paint(cell) + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in lined
    ]


def pairs(facts: Mapping[str, str]) -> list[str]:
    """`Name:  value` lines of a description; empty values are left out."""
    kept = [[clean(name) + ":", clean(value)] for name, value in facts.items() if value]
    return aligned(kept) if kept else []


def styled(word: str) -> str:
    """The word in its colour, for a terminal; use only where `colourful` holds."""
    return click.style(word, fg=_COLOURS[word]) if word in _COLOURS else word


def dump(value: object, output: Output) -> None:
    builtin = plain(value)
    if output is Output.JSON:
        click.echo(msgspec.json.format(msgspec.json.encode(builtin), indent=2))
    else:
        click.echo(yaml_text(builtin), nl=False)


def yaml_text(value: object) -> str:
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    writer.dump(value, text)
    return text.getvalue()
