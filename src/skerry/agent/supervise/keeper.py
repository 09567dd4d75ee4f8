# SPDX-License-Identifier: Apache-2.0
"""The keeper: holds a copy of every client connection of every runner, so that none is lost with a runner that dies.

When a runner has died (`verdict.judge` says which is which):
- idle connections go to the workload's next runner through its exchange, with whatever the client has sent meanwhile;
- a request that was taken gets one 503; what cannot be answered any more is closed;
- new connections wait in the listening sockets. Where no runner comes up in time, the agent answers them
  itself, with 503, until one does.

One thread does all of it (`turn`); other threads only leave errands. Runners' messages are taken in batches: what a connection
costs the agent is a few microseconds. Where descriptors run out, a connection simply has no copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import socket
import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Final

from skerry.agent.supervise.apology import Apology, sorry
from skerry.agent.supervise.copies import Copies, Copy
from skerry.agent.supervise.doors import Doors
from skerry.agent.supervise.gap import Gap
from skerry.agent.supervise.verdict import Noted, Verdict
from skerry.effects import Clock
from skerry.errors import RunnerLost
from skerry.wire.v1 import keeper as wire

_log = logging.getLogger(__name__)

_BATCH_SECONDS: Final = 0.01
_TICK_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 0.005
_SPARE_DESCRIPTORS: Final = 96  # never used up by copies: the agent itself must go on
_QUEUE_BYTES: Final = 4 * 1024 * 1024


class Keeper:
    def __init__(self, clock: Clock, *, patience: float, gave_up: Callable[[str], None]) -> None:
        """`gave_up(workload)` is called when the agent begins to answer in a workload's stead: `patience` seconds into a gap."""
        self._patience = patience
        self._clock = clock
        self._gave_up = gave_up
        self._errands: deque[Callable[[], None]] = deque()
        self._waker, self._wake = socket.socketpair()
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for each in (self._waker, self._wake, self._out):
            each.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._watch(self._waker, self._woken)
        self._copies: set[Copies] = set()
        self._gaps: dict[str, Gap] = {}
        self._homes: dict[str, str] = {}  # workload -> path of its exchange, while a runner serves
        self._homeless: dict[str, list[Copy]] = {}  # idle connections for the workload's next runner
        self._apologies: set[Apology] = set()
        self._room = _raised_descriptor_limit() - _SPARE_DESCRIPTORS
        self._resting = threading.Event()
        self._turning = threading.Lock()
        self._closed = False
        self.tally: Counter[Verdict] = Counter()  # of connections whose runner died

    # --- from any thread

    def attach(self, workload: str) -> socket.socket:
        """The end a new runner of the workload gets. The caller closes it once the runner has it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        self._leave(partial(self._attached, Copies(workload, ours)))
        return theirs

    def serves(self, workload: str, doors: Doors) -> None:
        """A runner of the workload accepts connections."""
        self._leave(partial(self._served, workload, doors.exchange_path))

    def lacks(self, workload: str, doors: Doors) -> None:
        """No runner of the workload accepts connections, and one should."""
        gap = Gap(workload, doors, since=self._clock.monotonic())
        self._leave(partial(self._lacking, gap))

    def removed(self, workload: str) -> None:
        """Nobody is to serve it any more."""
        self._leave(partial(self._removed, workload))

    # --- the keeper's thread

    def turn(self, timeout: float) -> None:
        """What there is to do now, or within `timeout` seconds."""
        with self._turning:
            if not self._closed:
                self._turn(timeout)
                return
        self._resting.wait(timeout)

    def _turn(self, timeout: float) -> None:
        busy = self._homeless and any(workload in self._homes for workload in self._homeless)
        wait = _RETRY_SECONDS if busy else min(timeout, _TICK_SECONDS if self._gaps or self._apologies else timeout)
        events = self._poll.poll(wait * 1000)
        while self._errands:  # first: a client that asks as its runner comes up is the runner's
            self._errands.popleft()()
        for descriptor, _ in events:
            reader = self._readers.get(descriptor)
            if reader is not None:
                reader()
        self._look_at_gaps()
        self._look_at_apologies()
        for workload in [name for name in self._homeless if name in self._homes]:
            self._hand_on(workload)
        if events:
            self._resting.wait(_BATCH_SECONDS)

    def close(self) -> None:
        """What is still held is let go; `turn` does nothing from now on."""
        with self._turning:
            self._closed = True
            while self._errands:
                self._errands.popleft()()
            for copies in self._copies:
                copies.close()
            for workload in {*self._homeless, *self._gaps}:
                self._removed(workload)
            for apology in self._apologies:
                apology.close()
            for each in (self._waker, self._wake, self._out):
                each.close()

    # --- errands

    def _leave(self, errand: Callable[[], None]) -> None:
        if self._closed:
            return
        self._errands.append(errand)
        with contextlib.suppress(OSError):  # full: it is awake
            self._wake.send(b"\0")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._waker.recv(4096)

    def _attached(self, copies: Copies) -> None:
        self._copies.add(copies)
        self._watch(copies.channel, partial(self._listen_to, copies))

    def _served(self, workload: str, exchange: str) -> None:
        self._end_gap(workload)
        if exchange:
            self._homes[workload] = exchange
        else:
            self._release(workload)

    def _lacking(self, gap: Gap) -> None:
        self._end_gap(gap.workload)
        self._homes.pop(gap.workload, None)
        self._gaps[gap.workload] = gap

    def _removed(self, workload: str) -> None:
        self._end_gap(workload)
        self._homes.pop(workload, None)
        self._release(workload)

    # --- runners

    def _listen_to(self, copies: Copies) -> None:
        others = sum(len(each) for each in self._copies if each is not copies)
        if copies.take(room=self._room - others):
            return
        self._unwatch(copies.channel)
        self._copies.discard(copies)
        for copy in copies.judged():
            self._settle(copies.workload, copy)
        copies.close()

    def _settle(self, workload: str, copy: Copy) -> None:
        self.tally[copy.verdict] += 1
        match copy.verdict:
            case Verdict.HAND_ON:
                self._shelter(workload, copy)
            case Verdict.ANSWER:
                answer = sorry(RunnerLost(workload=workload), retry_after=1)
                self._apologise(Apology(copy.connection, answer, now=self._clock.monotonic(), asked=True))
            case Verdict.LET_GO:
                copy.connection.close()
            case Verdict.CLOSE:
                _end(copy.connection)

    def _shelter(self, workload: str, copy: Copy) -> None:
        """An idle connection until the workload has a runner again."""
        self._homeless.setdefault(workload, []).append(copy)
        gap = self._gaps.get(workload)
        if gap is not None and gap.apologising:
            self._watch(copy.connection, partial(self._asked, gap, copy))

    def _hand_on(self, workload: str) -> None:
        """What does not fit into the exchange now does in a moment."""
        waiting = self._homeless.pop(workload, [])
        while waiting:
            copy = waiting[-1]
            noted = copy.noted
            handed = wire.Handed(box=copy.box, received=noted.received, sent=noted.promised, settled=noted.received)
            try:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [copy.connection.fileno()]))
                self._out.sendmsg([wire.encode(handed)], [rights], 0, self._homes[workload])
            except BlockingIOError:
                self._homeless[workload] = waiting
                return
            except OSError as error:
                _log.warning("not handed on workload=%s error=%s", workload, error)
                _end(copy.connection)
            copy.connection.close()
            waiting.pop()

    def _release(self, workload: str) -> None:
        for copy in self._homeless.pop(workload, []):
            _end(copy.connection)

    # --- in a workload's stead

    def _look_at_gaps(self) -> None:
        now = self._clock.monotonic()
        for gap in self._gaps.values():
            if gap.apologising or now - gap.since < self._patience:
                continue
            gap.apologising = True
            _log.warning("answers in its stead workload=%s", gap.workload)
            for each in gap.sockets:
                self._watch(each, partial(self._receive, gap, each))
            for copy in self._homeless.get(gap.workload, []):
                self._watch(copy.connection, partial(self._asked, gap, copy))
            self._gave_up(gap.workload)

    def _asked(self, gap: Gap, copy: Copy) -> None:
        """An idle connection that waits for a runner is asked meanwhile."""
        self._unwatch(copy.connection)
        self._homeless[gap.workload].remove(copy)
        self._apologise(Apology(copy.connection, gap.answer, now=self._clock.monotonic(), asked=False))

    def _receive(self, gap: Gap, which: socket.socket) -> None:
        now = self._clock.monotonic()
        for connection, handed in gap.arrivals(which, room=self._room - len(self._apologies)):
            if handed is not None and handed.request is None:  # idle: it came here before the gap was known
                noted = Noted(kept=handed.sent, promised=handed.sent, received=handed.settled)
                copy = Copy(connection=connection, box=handed.box, noted=noted, verdict=Verdict.HAND_ON)
                self._shelter(gap.workload, copy)
            else:
                self._apologise(Apology(connection, gap.answer, now=now, asked=handed is not None))

    def _end_gap(self, workload: str) -> None:
        gap = self._gaps.pop(workload, None)
        if gap is not None:
            for each in (*gap.sockets, *(copy.connection for copy in self._homeless.get(workload, []))):
                self._unwatch(each)
            gap.close()

    def _apologise(self, apology: Apology) -> None:
        self._apologies.add(apology)
        self._watch(apology.connection, lambda: apology.readable(self._clock.monotonic()))

    def _look_at_apologies(self) -> None:
        now = self._clock.monotonic()
        for apology in [each for each in self._apologies if each.over or now >= each.due]:
            self._apologies.discard(apology)
            self._unwatch(apology.connection)
            apology.close()

    # --- inside

    def _watch(self, each: socket.socket, reader: Callable[[], None]) -> None:
        self._readers[each.fileno()] = reader
        self._poll.register(each, select.POLLIN)

    def _unwatch(self, each: socket.socket) -> None:
        if self._readers.pop(each.fileno(), None) is not None:
            self._poll.unregister(each)


def _end(connection: socket.socket) -> None:
    """The other end reads an end of file, whoever else holds a copy."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _raised_descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else os.sysconf("SC_OPEN_MAX")
