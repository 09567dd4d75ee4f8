# SPDX-License-Identifier: Apache-2.0
"""Composition of a serving runner: server, endpoints, workers, probes, figures, results, and its way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from skerry import __version__
from skerry.effects import Clock, Entropy
from skerry.oip.messages import ModelSignature
from skerry.runner import results
from skerry.runner.box import ports_elsewhere
from skerry.runner.comparing import Comparer
from skerry.runner.control import BlockingControl, Control
from skerry.runner.openings import Openings
from skerry.runner.probes import Probes
from skerry.runtime import engines, memory
from skerry.runtime.selftest import SelfTestOutcome
from skerry.runtime.variant import LoadedVariant
from skerry.serve.access import AccessLog, Log
from skerry.serve.calls import Answered, Call
from skerry.serve.desk import Desk, Surroundings
from skerry.serve.endpoints import Endpoints, Gauges
from skerry.serve.http.call import BODY_LIMIT
from skerry.serve.http2 import Http2
from skerry.serve.scheduling.lanes import Turn
from skerry.serve.scheduling.workers import WorkerPool
from skerry.serve.served import Served
from skerry.serve.shm.regions import Regions
from skerry.serve.shm.slots import Slots
from skerry.wire.v1.runner import (
    Acked,
    BeginTrial,
    Command,
    Drain,
    Drained,
    EndTrial,
    Figures,
    Rest,
    Resting,
    Routes,
    Serve,
    Serving,
    Start,
)

if TYPE_CHECKING:
    from skerry.runner.trial import Trial

_ACK_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 12.0
"""For what is under way after the linger time. The agent waits 15 s before it kills, and results have to be handed over."""

_MAX_UNSENT: Final = 8 * 1024 * 1024  # bytes that wait for an agent which does not read
_EVENT_ID_BYTES: Final = 12
_MAX_WORKERS: Final = 4

_logger = logging.getLogger(__name__)
_access = logging.getLogger("skerry.access")


class ServingRunner:
    """Serves one loaded variant until told to drain. Use once, inside one event loop."""

    def __init__(
        self, start: Start, loaded: LoadedVariant, outcome: SelfTestOutcome, *, clock: Clock, entropy: Entropy
    ) -> None:
        self._start = start
        self._clock = clock
        self._egress = loaded.config.egress
        self._served = Served(signature=_signature(loaded), engine=loaded.engine, costs=loaded.costs)
        loop = asyncio.get_running_loop()
        self._workers = WorkerPool(loop, threads=_usable_cpus())
        around = Surroundings(
            clock=clock,
            pool=self._workers,
            turn=Turn(now=clock.monotonic, soon=loop.call_soon, alone=lambda: self._openings.alone),
            budget=(loaded.config.latency_budget_ms or 0.0) / 1000,
        )
        self._desk = Desk({loaded.config.name: self._served}, around, self if loaded.config.egress.results else None)
        regions = Regions() if start.shared_memory else None
        self._endpoints = Endpoints(
            self._desk,
            version=__version__,
            gauges=Gauges(
                resident_bytes=memory.resident_bytes,
                connections=lambda: self._openings.connections,
                waiting=lambda: self._desk.waiting,
            ),
            slots=Slots(self._desk),
            regions=regions,
        )
        log = Log(now=clock.monotonic, write=_access.info) if start.access_log else None
        handle = self._endpoints.handle
        self._openings = Openings(
            start,
            handle if log is None else AccessLog(handle, now=log.now, write=log.write),
            now=clock.monotonic,
            linger=start.linger_seconds,
            limit=_DRAIN_SECONDS,
            http2=Http2(self._desk, version=__version__, limit=BODY_LIMIT, regions=regions, log=log),
        )
        self._comparer = partial(
            Comparer, loaded.io.outputs, loaded.variant.tolerance, task=loaded.config.task
        )  # makes one for a trial
        self._trial: Trial | None = None
        self._orders: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._probes = Probes(loaded, self._served, outcome.agreed, ask=self._desk.probe, clock=clock)
        self._results = results.ResultQueue(entropy.token(_EVENT_ID_BYTES).hex())
        self._window_began = clock.monotonic()
        self._tidy = True  # what the last requests left was given back
        self._control: Control | None = None
        self._stop = asyncio.Event()
        self._gone = asyncio.Event()  # the agent, or our side of the channel
        self._handed_over = asyncio.Event()

    async def run(self, blocking: BlockingControl) -> None:
        """From the command Serve to the process's end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        _, control = await loop.create_unix_connection(
            lambda: Control(blocking.lines, self._command, self._agent_gone),
            sock=blocking.socket.dup(),  # the loop closes its own; should it end by a defect, the agent is still told
        )
        self._control = control
        for command in blocking.early:
            self._command(command)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_every(self._start.figures_seconds, self._figures_due)),
                group.create_task(_every(self._start.probe_seconds, self._probe_due)),
                group.create_task(self._follow_orders()),
            ]
            await self._stop.wait()
            await self._openings.close()
            for task in tasks:
                task.cancel()
        await self._hand_over(control)

    def answered(self, served: Served, call: Call, answer: Answered) -> None:
        """Witness of the desk: what the bundle declares goes to the agent."""
        del served, call
        if self._control is None:
            return
        outputs = results.declared(answer.outputs, self._egress)
        if not outputs:
            return
        if not self._control.connected or self._control.unsent > _MAX_UNSENT:
            self._results.dropped += 1
            return
        event = self._results.make(outputs, at=self._clock.now(), request_id=answer.request_id)
        if event is not None:
            self._control.send(event)

    def _command(self, command: Command) -> None:
        match command:
            case Drain():
                self._stop.set()
            case Acked():
                self._results.acknowledge(command.through)
                self._settle_results()
            case Routes():
                self._desk.elsewhere = ports_elsewhere(command, own=self._start.workload)
                self._openings.routes(command)
            case Serve():
                self._orders.put_nowait(partial(self._serve, private=command.private))
            case Rest():
                self._orders.put_nowait(self._rest)
            case BeginTrial():
                self._orders.put_nowait(partial(self._begin_trial, command))
            case EndTrial():
                self._orders.put_nowait(self._end_trial)
            case _:
                _logger.warning("command %s makes no sense while serving", type(command).__name__)

    async def _follow_orders(self) -> None:
        """One after the other, as they came."""
        while True:
            order = await self._orders.get()
            [problem] = await asyncio.gather(order(), return_exceptions=True)
            if problem is not None:  # no reason to end a runner that answers its clients
                _logger.error("order not followed", exc_info=problem)

    async def _serve(self, *, private: bool) -> None:
        await (self._openings.open_in_private() if private else self._openings.open())
        if self._control is not None:
            self._control.send(Serving(pid=os.getpid()))
        model = self._served.signature
        where = " in private" if private else ""
        _logger.info("serving%s %s %s: %s", where, model.name, model.variant, self._desk.lanes[model.name].placement)

    async def _rest(self) -> None:
        self._openings.rest(self._rested)

    def _rested(self) -> None:
        if self._control is not None:
            self._control.send(Resting())
        memory.give_back()

    async def _begin_trial(self, command: BeginTrial) -> None:
        await self._end_trial()
        from skerry.runner import trial  # few runners ever have one, and it brings a client

        comparer = self._comparer(how=command.trial.compare)
        self._trial = trial.begin(command, self._desk, self._served, comparer, self._clock.monotonic)

    async def _end_trial(self) -> None:
        ending, self._trial = self._trial, None
        if ending is not None:
            await ending.stop()

    def _agent_gone(self) -> None:
        self._gone.set()
        self._settle_results()
        if self._openings.resting:  # the next agent does not know that it could wake it up
            self._stop.set()
        if not self._stop.is_set():
            _logger.warning("the agent is gone; serving on until SIGTERM")

    def _probe_due(self) -> None:
        if not self._openings.resting:
            self._probes.tick()

    def _figures_due(self) -> None:
        began, self._window_began = self._window_began, self._clock.monotonic()
        self._send_figures(self._window_began - began)

    def _send_figures(self, seconds: float) -> None:
        window = self._served.counters.take_window()
        if window.requests:
            self._tidy = False
        elif not self._tidy:  # the first quiet window after work
            self._tidy = True
            memory.give_back()
        latency = window.latency
        event = Figures(
            window_seconds=seconds,
            requests=window.requests,
            errors=window.errors,
            latency_p50_ms=latency.quantile_ms(0.5),
            latency_p95_ms=latency.quantile_ms(0.95),
            latency_p99_ms=latency.quantile_ms(0.99),
            probes=window.probes,
            rss_mib=memory.resident_mib(),
            latency=dict(window.live.buckets) if self._trial is not None or self._openings.in_private else {},
        )
        if self._control is not None:
            self._control.send(event)
            if self._trial is not None:
                self._control.send(self._trial.told())

    async def _hand_over(self, control: Control) -> None:
        """Results are the agent's once it has acknowledged them; an agent that does not is not waited for for ever."""
        self._figures_due()
        self._settle_results()
        await _within(self._handed_over, _ACK_SECONDS)
        control.send(Drained(unsent=self._results.unacknowledged + self._results.dropped))
        control.close()
        await _within(self._gone, _ACK_SECONDS)
        self._workers.close()

    def _settle_results(self) -> None:
        if not self._results.unacknowledged or self._gone.is_set():
            self._handed_over.set()
        else:
            self._handed_over.clear()


async def _every(seconds: float, action: Callable[[], None]) -> None:
    """Never when `seconds` is 0. What goes wrong in one turn must not end a runner that answers its clients."""
    while seconds > 0:
        await asyncio.sleep(seconds)
        try:
            action()
        except Exception:  # the outermost frame of every turn
            _logger.exception("not done this time")


async def _within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _signature(loaded: LoadedVariant) -> ModelSignature:
    config = loaded.config
    runtime = loaded.variant.runtime
    return ModelSignature(
        name=config.name,
        version=config.version,
        variant=loaded.variant.name,
        io=loaded.io,
        platform=engines.PLATFORMS[runtime],
        backend=runtime,
    )


def _usable_cpus() -> int:
    return min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
