# SPDX-License-Identifier: Apache-2.0
"""How a bench reads: figures side by side, differences with their doubt, and what the machine did meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from skerry.cli.benching.trial import Difference, Figures, Round
from skerry.cli.render import aligned

_THOUSAND: Final = 1000.0
_BUSY: Final = 10.0  # per cent of pressure from which on figures of two runs should not be compared
_CLIENT_SHARE: Final = 0.2
_NONE: Final = "not measurable"


class Measured(Struct, frozen=True, kw_only=True):
    name: str
    figures: Figures
    unseen: str  # why CPU and memory could not be read; empty when they could


class Report(Struct, frozen=True, kw_only=True):
    """`pressure` is CPU pressure in per cent, median and highest of the rounds; None where the kernel does not tell."""

    connections: int
    rounds: int
    seconds: float  # of each subject
    subjects: tuple[Measured, ...]
    differences: tuple[Difference, ...]
    pressure: float | None
    pressure_highest: float | None


def pressure_of(rounds: Sequence[Round]) -> tuple[float | None, float | None]:
    known = [each.pressure for each in rounds if each.pressure is not None]
    return (median(known), max(known)) if known else (None, None)


def lines(report: Report) -> list[str]:
    rows = [["", *(each.name for each in report.subjects)], *_figure_rows(report)]
    found = aligned([row for row in rows if any(row[1:])])
    if report.differences:
        found += ["", *_difference_lines(report)]
    return [*found, "", *_notes(report)]


def _figure_rows(report: Report) -> list[list[str]]:
    all_figures = [each.figures for each in report.subjects]
    many = f"{report.connections} connections"

    def row(title: str, *cells: str) -> list[str]:
        return [title, *cells]

    return [
        row("1 connection: p50", *(_time(each.latency_p50_us) for each in all_figures)),
        row("  p10", *(_time(each.latency_p10_us) for each in all_figures)),
        row("  p90", *(_time(each.latency_p90_us) for each in all_figures)),
        row("  p99", *(_time(each.latency_p99_us) for each in all_figures)),
        row("  requests/s", *(f"{each.one_rps:,.0f}" for each in all_figures)),
        row("  CPU per request", *(_maybe_time(each.one_cpu_us) for each in all_figures)),
        row(f"{many}: requests/s", *(f"{each.many_rps:,.0f}" for each in all_figures)),
        row("  p50", *(_time(each.many_p50_us) for each in all_figures)),
        row("  p99", *(_time(each.many_p99_us) for each in all_figures)),
        row("  CPU per request", *(_maybe_time(each.many_cpu_us) for each in all_figures)),
        row("  energy per request", *(_energy(each.energy_mj) for each in all_figures)),
        row("memory: RSS", *(_mib(each.rss_mib) for each in all_figures)),
        row("  PSS", *(_mib(each.pss_mib) for each in all_figures)),
        row("cold start to first answer", *(_seconds(each.cold_start_s) for each in all_figures)),
    ]


def _time(us: float) -> str:
    return f"{us:.0f} us" if us < _THOUSAND else f"{us / _THOUSAND:.2f} ms"


def _maybe_time(us: float | None) -> str:
    return _NONE if us is None else _time(us)


def _energy(mj: float | None) -> str:
    return _NONE if mj is None else f"{mj:.2f} mJ"


def _mib(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0f} MiB"


def _seconds(value: float | None) -> str:
    return "it ran already" if value is None else f"{value:.2f} s"


def _difference_lines(report: Report) -> list[str]:
    first, second = (each.name for each in report.subjects)
    rows = [["FIGURE", "DIFFERENCE", "95 % INTERVAL", "VERDICT"]]
    rows += [
        [
            each.figure.replace("many", str(report.connections)),
            f"{_signed(each.interval.middle, each.unit)} ({each.share:+.1%})",
            f"{_signed(each.interval.low, each.unit)} .. {_signed(each.interval.high, each.unit)}",
            each.verdict,
        ]
        for each in report.differences
    ]
    return [f"{second}, against {first}:", *aligned(rows)]


def _signed(value: float, unit: str) -> str:
    return f"{value:+,.0f} {unit}" if abs(value) >= _THOUSAND / 100 or not value else f"{value:+.1f} {unit}"


def _notes(report: Report) -> list[str]:
    """What a reader has to know before believing the figures."""
    notes = [f"median over {report.rounds} rounds in random order, {report.seconds:g} s for each", _noise(report)]
    clients = [each.figures.client_cpu_us for each in report.subjects if each.figures.client_cpu_us is not None]
    if clients:
        notes[0] += f"; a client in Python, whose {max(clients):.0f} us of CPU a request are part of the latencies"
    if all(each.figures.energy_mj is None for each in report.subjects):
        notes.append("energy: not measurable here, no readable counter below /sys/class/powercap")
    for each in report.subjects:
        if each.unseen:
            notes.append(f"{each.name}: CPU and memory not measurable: {each.unseen}")
        if each.figures.changed_answers:
            notes.append(
                f"{each.name}: {each.figures.changed_answers} answers were unlike the first one to the same request"
            )
    if report.differences:
        notes.append(
            "a difference is seen when its interval (bootstrap over the paired rounds) leaves out 0; more --seconds narrow it"
        )
    return notes


def _noise(report: Report) -> str:
    if report.pressure is None:
        return "noise: this kernel does not tell how busy the CPUs were"
    words = f"noise: in {report.pressure:.0f} % of the time (at most {report.pressure_highest:.0f} %) something waited for a CPU"
    if report.pressure < _BUSY:
        return words
    return words + ", this load itself included; compare only what was measured in the same run"
