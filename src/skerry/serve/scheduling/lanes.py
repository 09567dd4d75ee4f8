# SPDX-License-Identifier: Apache-2.0
"""The way of one model's requests to its engine: on the loop's thread or on the workers. Lanes live on the loop's thread."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, Protocol

from skerry.errors import Overloaded
from skerry.serve.calls import Answered, Call, Outcome, Refused, attempt
from skerry.serve.scheduling.placing import Placement
from skerry.serve.scheduling.tickets import Monotonic, Result, Ticket, groups, in_vain, run, run_one
from skerry.serve.served import Served

_TURN_SECONDS: Final = 0.003  # what a turn of the loop may spend in engines before it looks at its sockets again
_ORDINARY: Final = 1 << 33  # the priority of a request that names none: behind those that do
_URGENT: Final = 0  # before every priority a request can name
_SHARE: Final = 8  # every so many runs the one that has waited longest goes first, whatever its priority
_SOONEST: Final = 1
_LATEST: Final = 60


Settle = Callable[[Served, Call, Outcome], None]
"""Called once per ticket, on the loop's thread."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The loop as a lane sees it. `alone` says that no other request can come in this turn; `soon` is call_soon."""

    now: Monotonic
    soon: Callable[[Callable[[], None]], object]
    alone: Callable[[], bool] = lambda: False


class Lane(Protocol):
    """`add` raises Overloaded; else the ticket is settled, after `add` has returned or within it."""

    placement: Placement

    @property
    def waiting(self) -> int: ...

    def add(self, ticket: Ticket) -> None: ...


class InlineLane:
    """All requests that can be read in one turn of the loop are run at its end, joined where that pays (no timer).

    At most `limit` wait: a connection of HTTP/1.1 has one request here at a time, but one of gRPC as many as it has streams.
    A turn that is cut short begins the next one with who has waited longest, so that priorities delay others, but not for ever.
    """

    def __init__(self, served: Served, placement: Placement, turn: Turn, settle: Settle, *, limit: int) -> None:
        self.placement = placement
        self._served = served
        self._turn = turn
        self._now = turn.now
        self._settle = settle
        self._limit = limit
        self._tickets: list[Ticket] = []
        self._left = False  # some of them by the turn before

    @property
    def waiting(self) -> int:
        return len(self._tickets)

    def add(self, ticket: Ticket) -> None:
        tickets = self._tickets
        if not tickets and self._turn.alone():
            served = self._served
            served.counters.runs += 1
            self._settle(served, ticket.call, run_one(served, ticket, self._now))
            return
        if len(tickets) >= self._limit:
            raise Overloaded(retry_after=_SOONEST)
        tickets.append(ticket)
        if len(tickets) == 1:
            self._turn.soon(self._flush)

    def _flush(self) -> None:
        tickets, self._tickets = self._tickets, []
        if len(tickets) == 1:
            self._run(tickets)
            return
        until = self._now() + _TURN_SECONDS
        done = 0
        ordered = in_turn(tickets, after=self._left)
        self._left = False
        for group in groups(ordered, self.placement.rows):
            self._run(group)
            done += len(group)
            if self._now() > until and done < len(tickets):
                self._put_back(ordered[done:])
                return

    def _put_back(self, tickets: Sequence[Ticket]) -> None:
        if not self._tickets:
            self._turn.soon(self._flush)
        self._tickets[:0] = tickets
        self._left = True

    def _run(self, tickets: Sequence[Ticket]) -> None:
        self._served.counters.runs += 1
        for call, outcome in run(self._served, tickets, self._now):
            self._settle(self._served, call, outcome)


class Pool(Protocol):
    """Threads. What `submit` is given runs on one of them; what `deliver` is given, on the loop's."""

    threads: int

    def submit(self, job: Callable[[], None]) -> None: ...

    def deliver(self, take: Callable[[], None]) -> None: ...


class WorkerLane:
    """A bounded queue in order of priority, then of arrival. While workers are busy, what waits forms the next batch.

    Every eighth run begins with who has waited longest: otherwise one client that calls itself urgent and keeps the queue full
    would keep everybody else waiting for ever.
    """

    def __init__(
        self, served: Served, placement: Placement, pool: Pool, turn: Turn, settle: Settle, *, limit: int
    ) -> None:
        self.placement = placement
        self._served = served
        self._pool = pool
        self._now = turn.now
        self._settle = settle
        self._limit = limit
        self._heap: list[tuple[int, int, Ticket]] = []
        self._numbers = count()
        self._running = 0
        self._begun = 0
        self._cost = served.costs.one  # seconds of a run, following what is observed

    @property
    def waiting(self) -> int:
        return len(self._heap) + self._running

    def add(self, ticket: Ticket) -> None:
        """Refuses at once what would have to wait too long, rather than let it wait in vain."""
        if not self._has_room(ticket):
            self._clear_out()
            if not self._has_room(ticket):
                raise Overloaded(retry_after=min(_LATEST, max(_SOONEST, math.ceil(self._wait()))))
        ticket.call.aside()
        heapq.heappush(self._heap, (ticket.request.priority or _ORDINARY, next(self._numbers), ticket))
        self._start()

    def _has_room(self, ticket: Ticket) -> bool:
        too_late = ticket.deadline and self._now() + self._wait() + self._cost > ticket.deadline
        return not too_late and len(self._heap) < self._limit

    def _clear_out(self) -> None:
        """What would not be run any more makes room for what comes."""
        now = self._now()
        vain = [(entry, error) for entry in self._heap if (error := in_vain(entry[2], now)) is not None]
        if not vain:
            return
        numbers = {entry[1] for entry, _ in vain}
        self._heap = [entry for entry in self._heap if entry[1] not in numbers]
        heapq.heapify(self._heap)
        for entry, error in vain:
            self._settle(self._served, entry[2].call, Refused(error=error))

    def _wait(self) -> float:
        ahead = len(self._heap) + max(0, self._running - self._pool.threads + 1)
        return ahead * self._cost / self._pool.threads

    def _start(self) -> None:
        while self._heap and self._running < self._pool.threads:
            tickets = self._next()
            self._running += 1
            self._served.counters.runs += 1
            self._pool.submit(partial(self._work, tickets))

    def _next(self) -> list[Ticket]:
        """The most urgent one and, where batches pay, those right behind that fit with it."""
        self._begun += 1
        if not self._begun % _SHARE:
            self._advance()
        if self.placement.rows == 1:
            return [heapq.heappop(self._heap)[2]]
        waiting = [entry[2] for entry in heapq.nsmallest(self.placement.rows, self._heap)]
        group = list(next(groups(waiting, self.placement.rows)))
        for _ in group:
            heapq.heappop(self._heap)
        return group

    def _advance(self) -> None:
        """Who has waited longest is the most urgent now."""
        at = min(range(len(self._heap)), key=lambda index: self._heap[index][1])
        _, number, ticket = self._heap[at]
        if at:
            self._heap[at] = (_URGENT, number, ticket)
            heapq.heapify(self._heap)

    def _work(self, tickets: Sequence[Ticket]) -> None:
        """On a worker's thread."""
        begun = self._now()
        results = run(self._served, tickets, self._now)
        for call, outcome in results:
            if isinstance(outcome, Answered):
                attempt(call.hand_over, outcome.answer)
        self._pool.deliver(partial(self._take, results, self._now() - begun))

    def _take(self, results: Sequence[Result], seconds: float) -> None:
        self._running -= 1
        self._cost += (seconds - self._cost) / 8
        self._start()
        for call, outcome in results:
            self._settle(self._served, call, outcome)


def in_turn(tickets: Sequence[Ticket], *, after: bool = False) -> Sequence[Ticket]:
    """By priority, then by arrival; `after` a turn that was cut short, behind the one that has waited longest."""
    if not any(ticket.request.priority for ticket in tickets):
        return tickets
    ordered = sorted(tickets, key=lambda ticket: ticket.request.priority or _ORDINARY)
    if after:
        oldest = min(range(len(ordered)), key=lambda index: ordered[index].call.received)
        ordered.insert(0, ordered.pop(oldest))
    return ordered
