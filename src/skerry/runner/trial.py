# SPDX-License-Identifier: Apache-2.0
"""The current version's side of a trial: clients' requests are shown to the new version, or a share of them is given to it.

Neither makes a client wait for the new version longer than it has to: copies are sent after the answer, a few at a time, and
left out rather than queued for long; what the new version does not answer, the current one does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from skerry.errors import SkerryError
from skerry.observe.comparison import Comparison, Problem, Share
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runner.candidate import Candidate
from skerry.runner.comparing import Comparer
from skerry.runtime.datatypes import Array
from skerry.runtime.engine import Sequence
from skerry.serve.calls import Answered, Call
from skerry.serve.desk import Desk, Witness
from skerry.serve.served import Served
from skerry.wire.v1.device import TrialMode
from skerry.wire.v1.runner import BeginTrial, TrialCounts

_QUEUE: Final = 64
_QUEUE_BYTES: Final = 16 * 1024 * 1024  # one request may be larger, alone
_BURST: Final = 8
_LEAST_PAUSE: Final = 0.01
_PAUSES: Final = 7
"""As many times as long as a burst took is the pause after it: seven of eight live requests meet no copy."""

_ON_THE_LOOP: Final = 16 * 1024  # bytes of text that are read there
_AT_ONCE: Final = 64  # requests the new version may have at a time
_SEQUENCES: Final = 4096  # of the new version that are remembered
_GIVE_UP_AFTER: Final = 3  # failures in a row ...
_GIVE_UP_SECONDS: Final = 1.0  # ... and it gets no request for so long

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Trial:
    """One trial under way; `begin` starts it, `stop` ends it, and what is under way then still ends well."""

    path: str
    desk: Desk
    running: Shadow | Canary
    witness: Witness | None  # of the desk, but for the trial

    def told(self) -> TrialCounts:
        return self.running.counts.told(self.path)

    async def stop(self) -> None:
        self.desk.divert, self.desk.witness = None, self.witness
        await self.running.stop()


def begin(command: BeginTrial, desk: Desk, served: Served, comparer: Comparer, now: Callable[[], float]) -> Trial:
    """Raises CallInvalid for a path no socket can have."""
    model = replace(served.signature, version=command.version, plans={})
    candidate = Candidate(command.path, model, cost=served.costs.one)
    share = Share(command.trial.percent)
    witness = desk.witness
    running: Shadow | Canary
    if command.trial.mode is TrialMode.SHADOW:
        running = Shadow(candidate, model, share, comparer, now, inner=witness)
        desk.witness = running
    else:
        running = Canary(candidate, model, share, desk, now)
        desk.divert = running.divert
    return Trial(path=command.path, desk=desk, running=running, witness=witness)


class Shadow:
    """A witness of the desk: copies of what was answered go to the new version, and its answers are compared."""

    def __init__(
        self,
        candidate: Candidate,
        model: ModelSignature,
        share: Share,
        comparer: Comparer,
        now: Callable[[], float],
        *,
        inner: Witness | None,
    ) -> None:
        self.counts = Comparison()
        self._now = now
        self._candidate = candidate
        self._model = model
        self._share = share
        self._comparer = comparer
        self._inner = inner
        self._queue: deque[tuple[Call, Mapping[str, Array]]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    def answered(self, served: Served, call: Call, answer: Answered) -> None:
        if self._inner is not None:
            self._inner.answered(served, call, answer)
        if not self._share.take():
            return
        weight = call.weight
        if len(self._queue) >= _QUEUE or (self._queue and self._bytes + weight > _QUEUE_BYTES):
            self.counts.dropped += 1
            return
        self._bytes += weight
        self._queue.append((call, answer.outputs))
        self._arrived.set()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._queue.clear()
        await self._candidate.close()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            begun = self._now()
            for _ in range(min(_BURST, len(self._queue))):
                call, outputs = self._queue.popleft()
                self._bytes -= call.weight
                await self._show(call, outputs)
            await asyncio.sleep(max(_LEAST_PAUSE, _PAUSES * (self._now() - begun)))
            if self._queue:
                self._arrived.set()

    async def _show(self, call: Call, outputs: Mapping[str, Array]) -> None:
        """A defect in one comparison must not end the comparing, nor anything else."""
        task = asyncio.ensure_future(self._compare(call, outputs))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        problem = task.exception() if task.done() and not task.cancelled() else None
        if isinstance(problem, SkerryError):  # it cannot be read, though the current version could
            _logger.info("not shown: %s", problem)
        elif problem is not None:
            _logger.error("not compared", exc_info=problem)
            self.counts.failed(Problem.UNREADABLE)

    async def _compare(self, call: Call, outputs: Mapping[str, Array]) -> None:
        request = await _read(call, self._model)
        if request.sequence is not None:
            self.counts.skipped += 1
            return
        found = await self._candidate.ask(request.inputs)
        if isinstance(found, Problem):
            self.counts.failed(found)
        else:
            self.counts.answered()
            self._comparer.compare(outputs, found, self.counts)


class Canary:
    """Gives a share of the desk's calls to the new version; those it fails are answered by the current one.

    A sequence stays with the version that began it. Where that is the new one and fails, the sequence is over: the current
    version, which has not seen its start, tells the client so.
    """

    def __init__(
        self, candidate: Candidate, model: ModelSignature, share: Share, desk: Desk, now: Callable[[], float]
    ) -> None:
        self.counts = Comparison()
        self._candidate = candidate
        self._model = model
        self._share = share
        self._desk = desk
        self._now = now
        self._tasks: set[asyncio.Task[Answered | None]] = set()
        self._failures = 0
        self._not_before = 0.0
        self._sequences: dict[int | str, None] = {}  # begun by the new version, in that order

    def divert(self, served: Served, call: Call) -> bool:
        if len(self._tasks) >= _AT_ONCE or not (self._model.io.state or self._chosen()):
            return False  # whose a request to a model with state is, is known when it was read
        task = asyncio.get_running_loop().create_task(self._try(call))
        self._tasks.add(task)
        task.add_done_callback(partial(self._settle, served, call))
        return True

    async def stop(self) -> None:
        """What is under way is answered by either."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._candidate.close()

    def _settle(self, served: Served, call: Call, task: asyncio.Task[Answered | None]) -> None:
        """The client gets an answer whatever became of the task."""
        self._tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not isinstance(problem, SkerryError):
            _logger.error("canary failed", exc_info=problem)
            self._failed(Problem.UNREADABLE)
        answered = None if task.cancelled() or problem is not None else task.result()
        if answered is not None:
            call.finish(answered)
        else:  # also what the client got wrong, and an answer without a form: for the current version to say
            call.pinned = True
            self._desk.ask(served, call)

    async def _try(self, call: Call) -> Answered | None:
        request = await _read(call, self._model)
        sequence = request.sequence
        if self._model.io.state and not self._takes(sequence):
            return None
        names = tuple(wanted.name for wanted in request.wanted.outputs)
        seconds = self._seconds(call, request)
        found = await self._candidate.ask(request.inputs, names, seconds=seconds, sequence=sequence)
        if sequence is not None and (sequence.end or isinstance(found, Problem)):
            self._sequences.pop(sequence.id, None)
        if isinstance(found, Problem):
            self._failed(found)
            return None
        answer = call.encode(request, found, self._model)
        self._failures = 0
        self.counts.answered()
        return Answered(answer=answer, outputs=found, request_id=request.id or "", rows=0, queue=0.0, compute=0.0)

    def _chosen(self) -> bool:
        return self._now() >= self._not_before and self._share.take()

    def _takes(self, sequence: Sequence | None) -> bool:
        """Of a request to a model with state: whether it is the new version's."""
        if sequence is None:
            return self._chosen()
        if not sequence.start:
            return sequence.id in self._sequences
        self._sequences.pop(sequence.id, None)
        if not self._chosen():
            return False
        if len(self._sequences) >= _SEQUENCES:
            del self._sequences[next(iter(self._sequences))]
        self._sequences[sequence.id] = None
        return True

    def _seconds(self, call: Call, request: InferRequest) -> float | None:
        """Half of what the client has left, so that the current version still can answer in time."""
        ends = [end for end in (call.deadline, request.timeout and call.received + request.timeout) if end]
        return (min(ends) - self._now()) / 2 if ends else None

    def _failed(self, problem: Problem) -> None:
        self.counts.failed(problem)
        self._failures += 1
        if self._failures >= _GIVE_UP_AFTER:
            self._not_before = self._now() + _GIVE_UP_SECONDS


async def _read(call: Call, model: ModelSignature) -> InferRequest:
    """Raises SkerryError."""
    if call.heavy or call.size > _ON_THE_LOOP:
        return await asyncio.to_thread(call.decode, model)
    return call.decode(model)
