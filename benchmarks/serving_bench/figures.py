# SPDX-License-Identifier: Apache-2.0
"""From samples to the table of goals: each row a value, the goal it is held to, and whether it is met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from msgspec import Struct

from serving_bench.rounds import Measured, Rounds, middle

Models = Mapping[str, Rounds]
Read = Callable[[Measured], float]


def over(each: Measured) -> float:
    return each.sample.p50 - each.floor["p50"]


def over_quick(each: Measured) -> float:
    """The same at the tenth percentile: what is left when nobody else wants the machine."""
    return each.sample.p10 - each.floor["p10"]


def over_in_runs(each: Measured) -> float:
    return over(each) / each.floor["p50"]


def p10_ratio(each: Measured) -> float:
    return each.sample.p10 / each.floor["p10"]


def cpu_ratio(each: Measured) -> float:
    return each.cpu / each.floor["cpu"]


def rate(each: Measured) -> float:
    return each.sample.rate


def p99_ms(each: Measured) -> float:
    return each.sample.p99 / 1000


_BARE_RUN = 30.0
"""Microseconds of a bare run of the small model on the machine the goals in microseconds were set on."""


class Verdict(Struct, frozen=True, kw_only=True):
    """`value` and `goal` in `unit`; nan = not measured in this run."""

    figure: str
    value: float
    goal: float
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def word(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        met = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "PASS" if met else "short"


def verdicts(models: Models, installs: Mapping[str, float]) -> list[Verdict]:
    return [
        *_latency(models),
        *_load(models),
        *_convolutions(models),
        *_footprint(models, installs),
        *_beside(models),
    ]


def _samples(models: Models, model: str, phase: str, way: str) -> list[Measured]:
    rounds = models.get(model)
    found: dict[str, list[Measured]] = getattr(rounds, phase) if rounds else {}
    return found.get(way, [])


def _latency(models: Models) -> list[Verdict]:
    goals = {"TCP binary": 30, "TCP JSON": 32, "unix binary": 22, "shared memory": 10, "gRPC": 40}
    rows = []
    for way, goal in goals.items():
        samples = _samples(models, "mlp", "one", f"skerry {way}")
        bare, quick = middle(samples, lambda each: each.floor["p50"]), middle(samples, over_quick)
        figure = f"p50 over bare engine, 30 us model, 1 client: {way}"
        note = f"p10 over bare p10: {quick:.0f} us; the bare run took {bare:.0f} us"
        rows += [
            Verdict(figure=figure, value=middle(samples, over), goal=goal, unit="us", note=note),
            Verdict(
                figure="  in bare runs",
                value=middle(samples, over_in_runs),
                goal=round(goal / _BARE_RUN, 2),
                unit="x",
                note=f"at p10: {middle(samples, lambda each: over_quick(each) / each.floor['p10']):.2f} x",
            ),
        ]
    return rows


def _load(models: Models) -> list[Verdict]:
    own = _samples(models, "mlp", "eight", "skerry TCP binary")
    rows = [
        Verdict(
            figure="CPU per request, 8 clients, 30 us model, over a bare run",
            value=middle(own, cpu_ratio),
            goal=1.0,
            unit="x",
            note=f"{middle(own, lambda each: each.cpu):.0f} us",
        )
    ]
    for peer, way, goal in (("MLServer", "mlserver JSON", 8), ("Triton's front end", "triton binary", 4)):
        theirs = middle(_samples(models, "mlp", "eight", way), rate)
        rows.append(
            Verdict(
                figure=f"throughput on one core, 8 clients, over {peer}",
                value=middle(own, rate) / theirs,
                goal=goal,
                unit="x",
                at_least=True,
                note=f"{middle(own, rate):.0f}/s against {theirs:.0f}/s",
            )
        )
    return rows


def _convolutions(models: Models) -> list[Verdict]:
    mobile = _samples(models, "mbv2", "one", "skerry TCP binary")
    res = _samples(models, "rn18", "one", "skerry TCP binary")
    slow = _samples(models, "mbv2", "slow", "skerry TCP binary")
    return [
        Verdict(figure="MobileNetV2-96, p10 over bare p10", value=middle(mobile, p10_ratio), goal=1.10, unit="x"),
        Verdict(
            figure="MobileNetV2-96, CPU per request over bare", value=middle(mobile, cpu_ratio), goal=1.08, unit="x"
        ),
        Verdict(figure="ResNet18-224, CPU per request over bare", value=middle(res, cpu_ratio), goal=1.03, unit="x"),
        Verdict(
            figure="CPU per inference at 10 requests/s over bare at that pace",
            value=middle(slow, cpu_ratio),
            goal=1.3,
            unit="x",
            note=f"{middle(slow, lambda each: each.cpu) / 1000:.2f} ms",
        ),
    ]


def _footprint(models: Models, installs: Mapping[str, float]) -> list[Verdict]:
    rounds = models.get("mbv2")
    found = rounds.footprints if rounds else {}
    wall = {name: min(each.wall for each in starts) for name, starts in found.items()}
    pss = {name: min(each.pss for each in starts) for name, starts in found.items()}
    own_size = installs.get("skerry", math.nan) - installs.get("engine", math.nan)
    return [
        _against_best("cold start to first answer, MobileNetV2, over the best peer", wall, 0.25, "s"),
        _against_best("idle PSS, MobileNetV2, over the best peer", pss, 0.6, "MiB"),
        Verdict(
            figure="install over engine + numpy: what serves",
            value=installs.get("skerry, serving", math.nan) - installs.get("engine", math.nan),
            goal=25,
            unit="MB",
            note=f"the whole device, agent and all: {own_size:.0f} MB",
        ),
    ]


def _against_best(figure: str, values: Mapping[str, float], goal: float, unit: str) -> Verdict:
    peers = {name: value for name, value in values.items() if name != "skerry"}
    best = min(peers, key=peers.__getitem__, default="")
    value = values.get("skerry", math.nan) / peers.get(best, math.nan)
    note = f"{values.get('skerry', math.nan):.2f} {unit} against {best} {peers.get(best, math.nan):.2f} {unit}"
    return Verdict(figure=figure, value=value, goal=goal, unit="x", note=note)


def _beside(models: Models) -> list[Verdict]:
    samples = _samples(models, "rn18", "probe", "skerry")
    best = min((p99_ms(each) for each in samples), default=math.nan)
    return [
        Verdict(
            figure="health probe p99 beside a 16 ms model",
            value=middle(samples, p99_ms),
            goal=1.0,
            unit="ms",
            note=f"best round {best:.2f} ms",
        )
    ]


def way_rows(found: Mapping[str, Sequence[Measured]]) -> list[list[str]]:
    """A line per way, quickest first."""
    header = ["WAY", "P50 US", "OVER BARE", "P10 OVER", "P10 X", "P99 US", "CPU US", "CPU X", "RATE/S", "ROUNDS"]
    ordered = sorted(found.items(), key=lambda item: middle(item[1], over))
    return [header, *([name, *_way_cells(samples)] for name, samples in ordered)]


def _way_cells(samples: Sequence[Measured]) -> list[str]:
    reads: tuple[tuple[Read, str], ...] = (
        (lambda each: each.sample.p50, ".0f"),
        (over, "+.0f"),
        (over_quick, "+.0f"),
        (p10_ratio, ".2f"),
        (lambda each: each.sample.p99, ".0f"),
        (lambda each: each.cpu, ".0f"),
        (cpu_ratio, ".2f"),
        (rate, ".0f"),
    )
    return [*(format(middle(samples, read), form) for read, form in reads), str(len(samples))]


def footprint_rows(rounds: Rounds) -> list[list[str]]:
    rows = [["SERVER", "COLD START S", "CPU S", "IDLE PSS MIB", "RSS MIB", "PROCESSES", "THREADS"]]
    for name, starts in rounds.footprints.items():
        best = min(starts, key=lambda each: each.wall)
        least = min(starts, key=lambda each: each.pss)
        rows.append(
            [
                name,
                f"{best.wall:.2f}",
                f"{best.cpu:.2f}",
                f"{least.pss:.0f}",
                f"{least.rss:.0f}",
                str(least.processes),
                str(least.threads),
            ]
        )
    return rows


QUIET = 40.0
"""Per cent of CPU pressure up to which verdicts count: server and client alone make some 20 on two cores."""


def pressure(models: Models) -> float | None:
    """Median over all samples; None where the kernel does not tell."""
    phases = [each for rounds in models.values() for each in (rounds.one, rounds.eight, rounds.slow, rounds.probe)]
    known = [
        each.pressure for phase in phases for samples in phase.values() for each in samples if each.pressure is not None
    ]
    return median(known) if known else None


def verdict_rows(found: Sequence[Verdict], *, doubtful: bool) -> list[list[str]]:
    """With a question mark where the machine was too busy for a verdict."""
    rows = [["FIGURE", "VALUE", "GOAL", "", "NOTE"]]
    for each in found:
        sign = ">=" if each.at_least else "<="
        rows.append(
            [
                each.figure,
                f"{each.value:.2f} {each.unit}",
                f"{sign} {each.goal:g} {each.unit}",
                each.word + "?" * (doubtful and not math.isnan(each.value)),
                each.note,
            ]
        )
    return rows
