# SPDX-License-Identifier: Apache-2.0
"""Threads for what takes longer than a turn of the loop may."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

_logger = logging.getLogger(__name__)


class WorkerPool:
    """Made and closed on the loop's thread. A job must not raise."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, threads: int = 1) -> None:
        self.threads = threads
        self._loop = loop
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()

    def submit(self, job: Callable[[], None]) -> None:
        self._queue.put(job)

    def deliver(self, take: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(take)
        except RuntimeError:
            _logger.debug("an answer dropped: the loop is closed")

    def close(self) -> None:
        """Let the threads end after what they have; does not wait for them."""
        for _ in range(self.threads):
            self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job()
