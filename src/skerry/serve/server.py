# SPDX-License-Identifier: Apache-2.0
"""HTTP server over listening sockets that others own: accept, watch deadlines, drain. One instance per loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from skerry.serve.connection import Connection, Limits, Room
from skerry.serve.message import HttpRequest, Reply

_SWEEP_SECONDS = 1.0
_logger = logging.getLogger(__name__)


class HttpServer:
    """The Host of its connections. `handler` answers each request through its reply, once."""

    def __init__(
        self,
        handler: Callable[[HttpRequest, Reply], None],
        *,
        now: Callable[[], float],
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.now = now
        self.handle = handler
        self.held = 0
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._draining = False

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, listener: socket.socket) -> None:
        """Accept on `listener`, which must be bound; other processes may accept on the same socket."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Connection(self), sock=listener, backlog=1024))
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep())

    async def drain(self, *, linger: float, limit: float = 30.0) -> None:
        """Stop accepting, let each open connection have its next answer with `Connection: close`, then close them all.

        Idle connections are closed after `linger` seconds, the rest when answered, whatever is left after `limit` more.
        The listening socket is closed here, not shut down: whoever shares it goes on accepting.
        """
        self._draining = True
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.drain()
        await asyncio.sleep(0)  # connections accepted in this turn of the loop become known in the next
        await self._until_empty(linger)
        for connection in list(self._connections):
            if connection.idle:
                connection.close()
        await self._until_empty(limit)
        for connection in list(self._connections):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def opened(self, connection: Connection) -> Room:
        self._connections.add(connection)
        if self._draining:
            connection.drain()
        over = len(self._connections) - self.limits.connections
        return Room.FREE if over <= 0 else Room.FULL if over <= self.limits.refusals else Room.FLOODED

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._changed.set()

    async def _until_empty(self, seconds: float) -> None:
        self._changed.clear()
        if not self._connections:
            return
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            _logger.debug("%d connections left after %g s", len(self._connections), seconds)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self.now()
            for connection in [each for each in self._connections if each.deadline < now]:
                connection.expire()
