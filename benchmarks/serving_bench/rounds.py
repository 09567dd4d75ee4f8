# SPDX-License-Identifier: Apache-2.0
"""The measuring itself. All servers are up, warm and frozen; one at a time is thawed, in an order drawn anew each round, and every
sample has its own floor: the bare engine run right before it, so that a machine that slows down slows down both.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from msgspec import Struct

from serving_bench.load import Bare, Loader, Ready, Sample, WrongAnswer, finish
from serving_bench.models import Model
from serving_bench.servers import Server
from skerry.cli.benching import processes

Say = Callable[[str], None]
Floor = dict[str, float]

CLIENTS = 8
SERVER_CORE, CLIENT_CORE = 0, 1
_SETTLE_SECONDS = 1.0
_PROBE_MICROSECONDS = 5000


class Measured(Struct, frozen=True, kw_only=True):
    """One sample of one way with its floor. `cpu`: microseconds of the server's process tree per request."""

    sample: Sample
    floor: Floor
    cpu: float
    pressure: float | None


class Footprint(Struct, frozen=True, kw_only=True):
    """Cold start in seconds (wall, CPU of the tree) to the first right answer; memory in MiB when idle."""

    wall: float
    cpu: float
    pss: float
    rss: float
    processes: int
    threads: int


@dataclass(kw_only=True)
class Rounds:
    """Everything measured about one model: way -> its samples, in the order of the rounds."""

    model: str
    one: dict[str, list[Measured]] = field(default_factory=dict)
    eight: dict[str, list[Measured]] = field(default_factory=dict)
    slow: dict[str, list[Measured]] = field(default_factory=dict)
    probe: dict[str, list[Measured]] = field(default_factory=dict)
    footprints: dict[str, list[Footprint]] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how often; seconds of a sample of one client, of eight, at a slow pace, beside a busy model."""

    rounds: int
    one: float
    eight: float = 0.0
    slow: float = 0.0
    probe: float = 0.0
    starts: int = 1
    floor: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Way:
    name: str
    server: Server
    ready: Ready


class Session:
    def __init__(self, model: Model, servers: Sequence[Server], loader: Loader, bare: Bare, say: Say) -> None:
        self.found = Rounds(model=model.name)
        self._servers = servers
        self._loader = loader
        self._bare = bare
        self._say = say
        self._ways: list[Way] = []
        self._probes: list[Way] = []
        self._up: list[Server] = []

    def run(self, plan: Plan) -> Rounds:
        try:
            for server in self._servers:
                self._bring_up(server, plan.starts)
            for number in range(plan.rounds):
                self._say(f"{self.found.model}: round {number + 1} of {plan.rounds}")
                self._round(plan)
        finally:
            for server in self._up:
                server.stop()
        return self.found

    # --- before the rounds ---

    def _bring_up(self, server: Server, starts: int) -> None:
        self._say(f"{self.found.model}: starting {server.name}")
        self._up.append(server)  # before it is: an interrupted start leaves nothing behind
        for number in range(starts):
            try:
                self._footprint(server)
            except WrongAnswer as error:
                self._leave_out(server.name, str(error))
                return
            if number + 1 < starts:
                server.stop()
        for label, (exchange, address) in server.ways().items():
            name = f"{server.name} {label}"
            try:
                self._ways.append(
                    Way(name=name, server=server, ready=self._loader.ready(exchange, address, server.model.y))
                )
            except (WrongAnswer, OSError) as error:
                self._leave_out(name, str(error))
        exchange, address = server.health()
        try:
            self._probes.append(Way(name=server.name, server=server, ready=self._loader.ready(exchange, address, None)))
        except (WrongAnswer, OSError) as error:
            self._leave_out(f"{server.name} health", str(error))
        server.freeze()

    def _footprint(self, server: Server) -> None:
        begun = time.monotonic()
        server.first_answer(self._loader)
        wall, cpu = time.monotonic() - begun, server.cpu()
        time.sleep(_SETTLE_SECONDS)
        pids, memory = server.pids, server.memory()
        self.found.footprints.setdefault(server.name, []).append(
            Footprint(
                wall=wall, cpu=cpu, pss=memory.pss, rss=memory.rss, processes=len(pids), threads=processes.threads(pids)
            )
        )

    def _leave_out(self, name: str, problem: str) -> None:
        self.found.void[name] = problem
        self._say(f"{self.found.model}: {name} left out: {problem[-500:]}")

    # --- a round ---

    def _round(self, plan: Plan) -> None:
        jobs: list[tuple[Callable[[Way, Plan], Measured], dict[str, list[Measured]], Way]] = []
        jobs += [(self._one, self.found.one, way) for way in self._ways]
        if plan.eight:
            jobs += [(self._eight, self.found.eight, way) for way in self._ways if way.ready.kind != "shm"]
        if plan.slow:
            jobs += [(self._slow, self.found.slow, way) for way in self._mains()]
        if plan.probe:
            jobs += [(self._probe, self.found.probe, way) for way in self._probes]
        random.shuffle(jobs)
        for measure, into, way in jobs:
            if way.name in self.found.void:
                continue
            try:
                with _thawed(way.server):
                    measured = measure(way, plan)
            except OSError as error:  # a peer that has died ends its own row, not everybody's
                self._leave_out(way.name, str(error))
                continue
            if measured.sample.bad:
                self._leave_out(way.name, f"{measured.sample.bad} bad answers: {measured.sample.problem}")
            else:
                into.setdefault(way.name, []).append(measured)

    def _mains(self) -> Iterator[Way]:
        """The first way of each server."""
        seen = set()
        for way in self._ways:
            if way.server.name not in seen:
                seen.add(way.server.name)
                yield way

    def _one(self, way: Way, plan: Plan) -> Measured:
        floor = self._bare.run(plan.floor)
        return self._measure(way, floor, lambda: self._loader.run(way.ready, seconds=plan.one))

    def _eight(self, way: Way, plan: Plan) -> Measured:
        floor = self._bare.run(plan.floor)
        way.server.pin({SERVER_CORE})
        try:
            return self._measure(
                way,
                floor,
                lambda: self._loader.run(way.ready, seconds=plan.eight, connections=CLIENTS, core=CLIENT_CORE),
            )
        finally:
            way.server.pin({SERVER_CORE, CLIENT_CORE})

    def _slow(self, way: Way, plan: Plan) -> Measured:
        """Ten requests a second, the bare engine at the same pace before it."""
        floor = self._bare.run(plan.slow, every=0.1)
        options = ("every=100000", "warm=2")
        return self._measure(way, floor, lambda: self._loader.run(way.ready, seconds=plan.slow, options=options))

    def _probe(self, way: Way, plan: Plan) -> Measured:
        """The health endpoint of a server whose model another client keeps busy without a pause."""
        main = next(each for each in self._ways if each.server is way.server)
        floor = self._bare.run(plan.floor)
        busy = self._loader.start(main.ready, seconds=plan.probe + 1)
        time.sleep(0.3)
        options = (f"every={_PROBE_MICROSECONDS}", "warm=5")
        measured = self._measure(way, floor, lambda: self._loader.run(way.ready, seconds=plan.probe, options=options))
        finish(busy)
        return measured

    def _measure(self, way: Way, floor: Floor, run: Callable[[], Sample]) -> Measured:
        before = way.server.cpu()
        sample = run()
        used = way.server.cpu() - before
        return Measured(
            sample=sample, floor=floor, cpu=used * 1e6 / max(1, sample.total), pressure=processes.pressure()
        )


@contextmanager
def _thawed(server: Server) -> Iterator[None]:
    server.thaw()
    try:
        yield
    finally:
        server.freeze()


def middle(samples: Sequence[Measured], read: Callable[[Measured], float]) -> float:
    """Median over the rounds; nan when there are none."""
    return median(map(read, samples)) if samples else float("nan")
