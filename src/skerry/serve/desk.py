# SPDX-License-Identifier: Apache-2.0
"""The way every request takes, a client's or a probe: read, placed, run, counted. Lives on the loop's thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

from skerry.effects import Clock
from skerry.errors import NotReady, Overloaded, SkerryError
from skerry.serve.calls import Answered, Call, Crashed, Done, Outcome, Refused
from skerry.serve.scheduling.lanes import InlineLane, Lane, Pool, WorkerLane
from skerry.serve.scheduling.placing import place
from skerry.serve.scheduling.tickets import admit, guarded, run
from skerry.serve.served import Served, find
from skerry.serve.status import status_of

_LONG: Final = 16 * 1024
"""Bytes of JSON that are read on the loop's thread: about 0.1 ms."""

_QUEUE: Final = 64
_logger = logging.getLogger(__name__)


class Witness(Protocol):
    def answered(self, served: Served, call: Call, answer: Answered) -> None:
        """Called after each answered request of a client; must be quick and must not raise."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """`soon` is the loop's call_soon; `budget` the latency budget in seconds, 0 = none."""

    clock: Clock
    pool: Pool
    soon: Callable[[Callable[[], None]], object]
    budget: float = 0.0
    queue: int = _QUEUE


class Desk:
    def __init__(self, models: Mapping[str, Served], around: Surroundings, witness: Witness | None = None) -> None:
        self.models = models
        self._around = around
        self._now = around.clock.monotonic
        self._witness = witness
        self._reading = 0  # requests that are read on a worker
        self.lanes: dict[str, Lane] = {name: self._lane(served) for name, served in models.items()}

    @property
    def waiting(self) -> int:
        return sum(lane.waiting for lane in self.lanes.values()) + self._reading

    def find(self, name: str, version: str = "") -> Served:
        """Raises UnknownModel."""
        return find(self.models, name, version)

    def ask(self, served: Served, call: Call, done: Done) -> None:
        """For a client: counted, and told to the witness. `done` is called once; nothing is raised."""
        self.probe(served, call, partial(self._settle, served, call, done))

    def probe(self, served: Served, call: Call, done: Done) -> None:
        """The same way, uncounted."""
        try:
            self._take(served, call, done)
        except SkerryError as error:
            done(Refused(error=error))
        except Exception as error:  # the outermost frame of a request
            _logger.exception("request failed")
            done(Crashed(problem=type(error).__name__))

    # --- inside

    def _take(self, served: Served, call: Call, done: Done) -> None:
        if not served.ready:
            raise NotReady(name=served.signature.name)
        if call.heavy or call.size > _LONG:
            self._read_on_worker(served, call, done)
        else:
            self.lanes[served.signature.name].add(admit(served, call, done, self._now))

    def _lane(self, served: Served) -> Lane:
        around = self._around
        placement = place(served.costs, budget=around.budget)
        if placement.inline:
            return InlineLane(served, placement, around.soon, self._now)
        return WorkerLane(served, placement, around.pool, self._now, limit=around.queue)

    def _read_on_worker(self, served: Served, call: Call, done: Done) -> None:
        """Read, run and write in one go: what takes long to read gains nothing from a batch."""
        if self._reading >= self._around.queue:
            raise Overloaded(retry_after=1)
        self._reading += 1

        def settle(outcome: Outcome) -> None:
            self._reading -= 1
            served.counters.runs += isinstance(outcome, Answered)
            done(outcome)

        self._around.pool.submit(
            lambda: self._around.pool.deliver([(settle, guarded(partial(_whole, served, call, self._now)))])
        )

    def _settle(self, served: Served, call: Call, done: Done, outcome: Outcome) -> None:
        done(outcome)
        counters = served.counters
        match outcome:
            case Answered():
                clock = self._around.clock
                total = clock.monotonic() - call.received
                times = (total, outcome.queue, outcome.compute, outcome.codec, outcome.batch)
                counters.note(times, outcome.rows, clock.now())
                counters.not_finite += getattr(outcome.answer, "not_finite", 0)
                if self._witness is not None:
                    self._witness.answered(served, call, outcome)
            case Refused(error=error) if status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR:
                counters.refusal(error.code)
            case Refused(error=error):
                counters.failure(error.code)
            case Crashed():
                counters.failure(SkerryError.code)


def _whole(served: Served, call: Call, now: Callable[[], float]) -> Outcome:
    done: Done = _nobody
    [(_, outcome)] = run(served, [admit(served, call, done, now)], now)
    return outcome


def _nobody(_: Outcome) -> None:
    """The result goes back with the job instead."""
