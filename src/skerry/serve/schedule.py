# SPDX-License-Identifier: Apache-2.0
"""Where a piece of work runs: at once on the loop's thread when it is cheap, else on a worker, so that nothing else waits.

A job is a function without arguments that returns a value (an expected error is a value too) and touches nothing the loop
owns. Its `done` is always called on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from typing import Final, Protocol, TypeVar

from skerry.errors import Overloaded

T = TypeVar("T")

CHEAP_SECONDS: Final = 0.0003
"""A run measured below this at load may hold up the loop: the hop to a worker would cost about as much."""

SMALL_BODY: Final = 128 * 1024
"""A body above this is decoded on a worker, whatever its model costs."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inline:
    """Run at once; `reason` for logs and statistics."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class OnWorker:
    reason: str


Place = Inline | OnWorker


def place(cost: float, body: int, *, compressed: bool = False) -> Place:
    """`cost` in seconds per run as measured at load, `body` in bytes."""
    return _place(cost, large=body > SMALL_BODY, compressed=compressed)


@lru_cache(maxsize=64)
def _place(cost: float, *, large: bool, compressed: bool) -> Place:
    if cost > CHEAP_SECONDS:
        return OnWorker(reason=f"a run takes {cost * 1000:.2f} ms, more than {CHEAP_SECONDS * 1000:g} ms")
    if large:
        return OnWorker(reason=f"a body above {SMALL_BODY} bytes takes long to decode")
    if compressed:
        return OnWorker(reason="a compressed body may be a thousand times larger inside")
    return Inline(reason=f"a run takes {cost * 1000:.3f} ms")


@dataclass(frozen=True, kw_only=True)
class Crashed:
    """A job raised: a defect of ours, already logged."""

    problem: str


def guarded(job: Callable[[], T]) -> T | Crashed:
    """Run `job`; without this one defect in one request would end the thread that answers all of them."""
    try:
        return job()
    except Exception as error:  # the outermost frame of every job
        _logger.exception("job failed")
        return Crashed(problem=type(error).__name__)


class Workers(Protocol):
    def submit(self, job: Callable[[], T], done: Callable[[T | Crashed], None]) -> None:
        """Raises Overloaded when too many jobs are waiting already."""


class WorkerPool:
    """Threads that take jobs from one bounded queue. Made and closed on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, threads: int = 1, limit: int = 64) -> None:
        self._loop = loop
        self._limit = limit
        self._pending = 0
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Jobs taken in and not done."""
        return self._pending

    def submit(self, job: Callable[[], T], done: Callable[[T | Crashed], None]) -> None:
        if self._pending >= self._limit:
            raise Overloaded(retry_after=1)
        self._pending += 1

        def finish(value: T | Crashed) -> None:
            self._pending -= 1
            done(value)

        self._queue.put(lambda: self._deliver(finish, guarded(job)))

    def close(self) -> None:
        """Let the threads end after what they have; does not wait for them."""
        for _ in self._threads:
            self._queue.put(None)

    def _deliver(self, finish: Callable[[T | Crashed], None], value: T | Crashed) -> None:
        try:
            self._loop.call_soon_threadsafe(finish, value)
        except RuntimeError:
            _logger.debug("answer of a job dropped: the loop is closed")

    def _work(self) -> None:
        while (step := self._queue.get()) is not None:
            step()
