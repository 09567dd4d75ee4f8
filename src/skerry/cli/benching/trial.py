# SPDX-License-Identifier: Apache-2.0
"""Interleaved rounds over one or two subjects, and what they come to. Every round measures every subject, in random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from msgspec import Struct

from skerry.cli.benching import processes
from skerry.cli.benching.load import Timing
from skerry.cli.benching.statistics import Interval, paired
from skerry.cli.benching.subjects import Subject

_LEAST_ROUNDS: Final = 5
_LEAST_SECONDS: Final = 0.25
_SHARES: Final = 2  # of a round: one connection, many connections

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`seconds` is for one subject in all."""

    seconds: float
    connections: int

    @property
    def rounds(self) -> int:
        """As many as give each sample a quarter of a second at least, five where that is too many to ask."""
        return max(_LEAST_ROUNDS, min(20, int(self.seconds / (_SHARES * 2 * _LEAST_SECONDS))))

    @property
    def slice(self) -> float:
        return self.seconds / self.rounds / _SHARES


class Sample(Struct, frozen=True, kw_only=True):
    """One slice. `cpu_us` and `joules` are per request; None where that cannot be measured."""

    timing: Timing
    cpu_us: float | None
    joules: float | None


class Round(Struct, frozen=True, kw_only=True):
    """`one` and `many`: subject -> its slice with one and with many connections."""

    one: dict[str, Sample]
    many: dict[str, Sample]
    pressure: float | None


class Figures(Struct, frozen=True, kw_only=True):
    """Medians over the rounds. Microseconds, requests a second, MiB, seconds, millijoules."""

    latency_p10_us: float
    latency_p50_us: float
    latency_p90_us: float
    latency_p99_us: float
    one_rps: float
    many_rps: float
    many_p50_us: float
    many_p99_us: float
    one_cpu_us: float | None
    many_cpu_us: float | None
    energy_mj: float | None
    rss_mib: float | None
    pss_mib: float | None
    cold_start_s: float | None
    client_cpu_us: float | None
    changed_answers: int


class Difference(Struct, frozen=True, kw_only=True):
    """Second minus first, paired by round. `share` is relative to the first's median."""

    figure: str
    unit: str
    first: float
    second: float
    interval: Interval
    share: float
    less_is_better: bool

    @property
    def verdict(self) -> str:
        if not self.interval.sees_a_difference:
            return "no difference seen"
        better = (self.interval.middle < 0) == self.less_is_better
        return "better" if better else "worse"


def measure(subjects: Sequence[Subject], plan: Plan, advance: Advance) -> list[Round]:
    """Raises BenchFailed at the first request that is not answered. `advance` is called after each slice."""
    rounds = []
    for _ in range(plan.rounds):
        found: dict[int, dict[str, Sample]] = {1: {}, 2: {}}
        jobs = [(subject, which) for subject in subjects for which in found]
        random.shuffle(jobs)
        for subject, which in jobs:
            found[which][subject.name] = _slice(subject, plan.slice, plan.connections if which == 2 else 1)  # noqa: PLR2004
            advance(1)
        rounds.append(Round(one=found[1], many=found[2], pressure=processes.pressure()))
    return rounds


def _slice(subject: Subject, seconds: float, connections: int) -> Sample:
    cpu, joules = processes.cpu_seconds(subject.pids), processes.energy()
    timing = subject.run(seconds, connections)
    used = (processes.cpu_seconds(subject.pids) - cpu) * 1e6 / max(1, timing.asked)
    after = processes.energy()
    spent = (after - joules) / max(1, timing.asked) if joules is not None and after is not None else None
    return Sample(
        timing=timing,
        cpu_us=used if subject.root else None,
        joules=spent if spent is not None and spent >= 0 else None,  # the counter wraps round
    )


def figures(subject: Subject, rounds: Sequence[Round]) -> Figures:
    one = [each.one[subject.name] for each in rounds]
    many = [each.many[subject.name] for each in rounds]
    memory = processes.memory(subject.pids) if subject.root else None
    joules = _middle([each.joules for each in many])
    return Figures(
        latency_p10_us=median(each.timing.p10 for each in one),
        latency_p50_us=median(each.timing.p50 for each in one),
        latency_p90_us=median(each.timing.p90 for each in one),
        latency_p99_us=median(each.timing.p99 for each in one),
        one_rps=median(map(_rate, one)),
        many_rps=median(map(_rate, many)),
        many_p50_us=median(each.timing.p50 for each in many),
        many_p99_us=median(each.timing.p99 for each in many),
        one_cpu_us=_middle([each.cpu_us for each in one]),
        many_cpu_us=_middle([each.cpu_us for each in many]),
        energy_mj=joules * 1000 if joules is not None else None,
        rss_mib=memory.rss if memory else None,
        pss_mib=memory.pss if memory and memory.pss else None,
        cold_start_s=subject.cold_start,
        client_cpu_us=None if subject.in_process else median(each.timing.cpu for each in one),
        changed_answers=sum(each.timing.changed for each in one + many),
    )


def _rate(sample: Sample) -> float:
    return sample.timing.requests / sample.timing.seconds if sample.timing.seconds else 0.0


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


_Read = Callable[[Round, str], float | None]
_COMPARED: Final[Mapping[str, tuple[str, bool, _Read]]] = {
    "p50, 1 connection": ("us", True, lambda each, name: each.one[name].timing.p50),
    "p99, 1 connection": ("us", True, lambda each, name: each.one[name].timing.p99),
    "CPU per request, 1 connection": ("us", True, lambda each, name: each.one[name].cpu_us),
    "requests/s, many connections": ("/s", False, lambda each, name: _rate(each.many[name])),
    "p50, many connections": ("us", True, lambda each, name: each.many[name].timing.p50),
    "CPU per request, many connections": ("us", True, lambda each, name: each.many[name].cpu_us),
}


def differences(first: str, second: str, rounds: Sequence[Round]) -> list[Difference]:
    found = []
    for figure, (unit, less_is_better, read) in _COMPARED.items():
        pairs = [(read(each, first), read(each, second)) for each in rounds]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not known:
            continue
        before = median(a for a, _ in known)
        interval = paired([b - a for a, b in known])
        found.append(
            Difference(
                figure=figure,
                unit=unit,
                first=before,
                second=median(b for _, b in known),
                interval=interval,
                share=interval.middle / before if before else 0.0,
                less_is_better=less_is_better,
            )
        )
    return found
