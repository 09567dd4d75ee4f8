# SPDX-License-Identifier: Apache-2.0
"""The way every request takes, a client's or a probe: read, placed, run, counted. Lives on the loop's thread."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

from skerry.effects import Clock
from skerry.errors import ModelElsewhere, NotReady, Overloaded, SkerryError
from skerry.runtime.costs import Costs, Typical, scaled
from skerry.serve.calls import Answered, Call, Crashed, Done, Outcome, Refused, attempt
from skerry.serve.scheduling.lanes import InlineLane, Lane, Pool, Turn, WorkerLane
from skerry.serve.scheduling.placing import misplaced, place
from skerry.serve.scheduling.tickets import admit, run_one
from skerry.serve.served import Served, find
from skerry.serve.status import status_of

_LONG: Final = 16 * 1024
"""Bytes of JSON that are read on the loop's thread: about 0.1 ms."""

_QUEUE: Final = 64
_TURNS: Final = 16
"""As many times `queue` may wait for the loop's thread: 1024 runs, none longer than 0.3 ms, are well under a second."""
_logger = logging.getLogger(__name__)


class Witness(Protocol):
    def answered(self, served: Served, call: Call, answer: Answered) -> None:
        """Called after each answered request of a client; must be quick and must not raise."""


class Divert(Protocol):
    def __call__(self, served: Served, call: Call) -> bool:
        """Whether someone else finishes the call. Quick, raises nothing; what it gives back comes again, pinned."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """`budget` is the latency budget in seconds, 0 = none; `queue` bounds what waits for the workers, per model."""

    clock: Clock
    pool: Pool
    turn: Turn
    budget: float = 0.0
    queue: int = _QUEUE


class Desk:
    def __init__(self, models: Mapping[str, Served], around: Surroundings, witness: Witness | None = None) -> None:
        self.models = models
        self._around = around
        self._now = around.turn.now
        self._today = around.clock.now
        self.witness = witness
        self.divert: Divert | None = None  # while a canary answers a share of the requests
        self.elsewhere: Mapping[
            tuple[str, str], int
        ] = {}  # (model, version or "") -> port of the workload that serves it
        self._reading = 0  # requests that are read on a worker
        self.lanes: dict[str, Lane] = {}
        self._typical: dict[str, Typical] = {}
        for name, served in models.items():
            self.lanes[name] = self._lane(served, served.costs)
            self._typical[name] = Typical(served.costs.one)

    @property
    def waiting(self) -> int:
        return sum(lane.waiting for lane in self.lanes.values()) + self._reading

    def find(self, name: str, version: str = "") -> Served:
        """Raises UnknownModel, ModelElsewhere."""
        own = self.models.get(name)
        if own is None or version not in {"", own.signature.version}:
            port = self.elsewhere.get((name, version)) or (self.elsewhere.get((name, "")) if own is None else None)
            if port is not None:
                raise ModelElsewhere(name=name, port=port)
        return find(self.models, name, version)

    def ask(self, served: Served, call: Call, done: Done | None = None) -> None:
        """`call` is finished once, with `done` where that is given; nothing is raised."""
        if done is not None:
            call.done = done
        if self.divert is not None and call.counted and not call.pinned and self.divert(served, call):
            return
        try:
            if not served.ready:
                self._settle(served, call, Refused(error=NotReady(name=served.signature.name)))
            elif call.heavy or call.size > _LONG:
                self._read_on_worker(served, call)
            else:
                self.lanes[served.signature.name].add(admit(served, call, self._now))
        except SkerryError as error:
            self._settle(served, call, Refused(error=error))
        except Exception as error:  # the outermost frame of a request
            _logger.exception("request failed")
            self._settle(served, call, Crashed(problem=type(error).__name__, name=served.signature.name))

    def probe(self, served: Served, call: Call, done: Done) -> None:
        """The same way, but no client's request: not counted, not told to the witness."""
        call.counted = False
        self.ask(served, call, done)

    def unattended(self, served: Served) -> bool:
        """Whether whoever has a request may run it at once, on the loop's thread: cheap, nobody waits before it, nobody watches."""
        lane = self.lanes[served.signature.name]
        return (
            self.witness is None and self.divert is None and served.ready and lane.placement.inline and not lane.waiting
        )

    def ran(self, served: Served, rows: int, times: tuple[float, float, float]) -> None:
        """The books for a request that was run so and answered: received, begun and ended, in monotonic seconds."""
        received, begun, ended = times
        total = self._now() - received
        served.counters.runs += 1
        noted = (total, 0.0, ended - begun, total - (ended - begun), 1)
        served.counters.answer(noted, rows=rows, at=self._today())
        if rows <= 1:
            self._observe(served, ended - begun)

    def refused(self, served: Served, error: SkerryError) -> None:
        """The same for one that ended with `error`."""
        if status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR:
            served.counters.refusal(error.code)
        else:
            served.counters.failure(error.code)

    # --- inside

    def _lane(self, served: Served, costs: Costs) -> Lane:
        around = self._around
        placement = place(costs, budget=around.budget)
        served.placement = str(placement)
        if placement.inline:
            return InlineLane(served, placement, around.turn, self._settle, limit=around.queue * _TURNS)
        return WorkerLane(served, placement, around.pool, around.turn, self._settle, limit=around.queue)

    def _observe(self, served: Served, seconds: float) -> None:
        """A model whose runs take much longer or shorter than at load changes its lane; what waits in the old one stays."""
        name = served.signature.name
        typical = self._typical[name]
        typical.add(seconds)
        if misplaced(self.lanes[name].placement, typical.value):
            self.lanes[name] = self._lane(served, scaled(served.costs, typical.value))
            _logger.info("%s is placed anew: %s", name, served.placement)

    def _read_on_worker(self, served: Served, call: Call) -> None:
        """Read, run and write in one go: what takes long to read gains nothing from a batch."""
        if self._reading >= self._around.queue:
            raise Overloaded(retry_after=1)
        self._reading += 1
        call.aside()
        self._around.pool.submit(partial(self._whole, served, call))

    def _whole(self, served: Served, call: Call) -> None:
        """On a worker's thread."""
        outcome: Outcome
        try:
            outcome = run_one(served, admit(served, call, self._now), self._now)
            if isinstance(outcome, Answered):
                attempt(call.hand_over, outcome.answer)
        except SkerryError as error:
            outcome = Refused(error=error)
        except Exception as error:  # the outermost frame of a request
            _logger.exception("request failed")
            outcome = Crashed(problem=type(error).__name__, name=served.signature.name)
        self._around.pool.deliver(partial(self._read_and_run, served, call, outcome))

    def _read_and_run(self, served: Served, call: Call, outcome: Outcome) -> None:
        self._reading -= 1
        served.counters.runs += isinstance(outcome, Answered)
        self._settle(served, call, outcome)

    def _settle(self, served: Served, call: Call, outcome: Outcome) -> None:
        """The answer first, then the books; but the time is taken before: a woken client may run before we do again."""
        total = self._now() - call.received
        attempt(call.finish, outcome)
        if not call.counted:
            return
        counters = served.counters
        if isinstance(outcome, Answered):
            times = (total, outcome.queue, outcome.compute, outcome.codec, outcome.batch)
            counters.answer(times, rows=outcome.rows, at=self._today(), not_finite=call.not_finite)
            if outcome.batch == 1 and outcome.rows <= 1:
                self._observe(served, outcome.compute)
            if self.witness is not None:
                self.witness.answered(served, call, outcome)
        else:
            self.refused(served, outcome.error)
