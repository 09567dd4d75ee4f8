# SPDX-License-Identifier: Apache-2.0
"""Waking the long-polls of a device: in this process by events, between replicas by PostgreSQL's LISTEN/NOTIFY."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psycopg

CHANNEL = "skerry_desired"
_RETRY_SECONDS = 2.0

log = logging.getLogger(__name__)


class Wakeups:
    """Events by device id. `close` wakes everyone for good."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.closed = False

    @contextmanager
    def waiter(self, device_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(device_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiting[device_id]
            events.discard(event)
            if not events:
                del self._waiting[device_id]

    def wake(self, device_ids: Iterable[str]) -> None:
        for device_id in device_ids:
            for event in self._waiting.get(device_id, ()):
                event.set()

    def wake_all(self) -> None:
        self.wake(tuple(self._waiting))

    def close(self) -> None:
        self.closed = True
        self.wake_all()


class Listener:
    """Passes the other replicas' notifications on. A lost connection is opened again; long-polls also look by themselves."""

    def __init__(self, conninfo: str, wakeups: Wakeups) -> None:
        self._conninfo = conninfo
        self._wakeups = wakeups
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                log.warning("listening to the database broke off problem=%s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._wakeups.wake_all()  # whatever was said while nobody listened
            async for notification in connection.notifies():
                self._wakeups.wake((notification.payload,))
