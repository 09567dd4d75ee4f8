# SPDX-License-Identifier: Apache-2.0
"""HTTP server over listening sockets that others own: accept, watch deadlines, drain. One instance per loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol

from skerry.serve.http.connection import Begun, Connection
from skerry.serve.http.message import Head, HttpRequest, Reply
from skerry.serve.http.receiving import Limits
from skerry.serve.ledger import Ledger, Line

_SWEEP_SECONDS = 1.0
_BACKLOG = 1024
_ACCEPTS_A_TURN = 64
_ACCEPT_PAUSE = 0.2
_THINKING_SECONDS = 1.0
_HEAD_SECONDS = 3.0
_logger = logging.getLogger(__name__)


class Held(Protocol):
    """A connection as the server sees it, whatever protocol it speaks by now."""

    @property
    def deadline(self) -> float: ...

    @property
    def idle(self) -> bool: ...

    def drain(self) -> None: ...

    def close(self) -> None: ...

    def expire(self) -> None: ...


class HttpServer:
    """The Host of its connections. `handler` answers each request through its reply, once."""

    def __init__(
        self,
        handler: Callable[[HttpRequest, Reply], None],
        *,
        now: Callable[[], float],
        limits: Limits | None = None,
        ledger: Ledger | None = None,
        elsewhere: Callable[[Connection, HttpRequest], bool] | None = None,
        http2: Callable[[asyncio.Transport, HttpServer, bytes], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.now = now
        self.handle = handler
        self.elsewhere = elsewhere
        self.http2 = http2
        self.several = False  # calls are being read of a connection that brings several at once
        self.ledger = ledger or Ledger()
        self.held = 0
        self.known: dict[bytes, Head] = {}
        self._connections: set[Held] = set()
        self._listeners: list[socket.socket] = []
        self._coming: set[Held] = set()  # accepted, and not announced yet
        self._arriving: set[asyncio.Task[object]] = set()  # accepted, and known to be a connection in a turn or two
        self._sweeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._inhabited = asyncio.Event()
        self._draining = False

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, listener: socket.socket) -> None:
        """Accept on `listener`, which must be bound; other processes may accept on the same socket.

        Not by the loop's own server: that one drops what it has accepted and not announced when it is closed, and a drain
        would have to guess how long to wait for it.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        listener.listen(_BACKLOG)
        self._listeners.append(listener)
        loop.add_reader(listener, self._accept, loop, listener)
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep())

    def adopt(self, connected: socket.socket, line: Line, begun: Begun | None = None) -> None:
        """Serve a connection: one just accepted, or one that another process began.

        Whoever calls has opened its `line` in `ledger` before anything else: without one it would die with this process.
        """
        if len(self._connections) + len(self._coming) >= self.limits.connections + self.limits.refusals:
            line.ended()
            connected.close()
            return
        begun = begun or Begun()
        connected.setblocking(False)  # noqa: FBT003 - the standard library's signature
        loop = asyncio.get_running_loop()
        connection = Connection(self, line, begun)
        arriving = loop.create_task(loop.connect_accepted_socket(lambda: connection, connected))
        self._coming.add(connection)
        self._arriving.add(arriving)
        arriving.add_done_callback(partial(self._arrived, connection))

    async def drain(self, *, linger: float, limit: float = 30.0) -> None:
        """Stop accepting, let each open connection have its next answer with `Connection: close`, then close them all.

        Idle connections are closed after `linger` seconds, the rest when answered, whatever is left after `limit` more.
        The listening socket is closed here, not shut down: whoever shares it goes on accepting.
        """
        self._draining = True
        self._stop_listening()
        for connection in self._connections:
            connection.drain()
        if self._arriving:
            await asyncio.wait(self._arriving)
        await self._until_empty(linger)
        for connection in list(self._connections):
            if connection.idle:
                connection.close()
        await self._until_empty(limit)
        for connection in list(self._connections):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of file descriptors or memory: clients wait in the queue
                _logger.warning("accepts no connection for %g s: %s", _ACCEPT_PAUSE, error.strerror)
                loop.remove_reader(listener)
                loop.call_later(_ACCEPT_PAUSE, self._accept_again, loop, listener)
                return
            self.adopt(accepted, self.ledger.open(accepted))

    def _arrived(self, connection: Held, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        self._coming.discard(connection)
        if not task.cancelled() and task.exception() is not None:
            _logger.debug("a connection was gone before it was known: %s", task.exception())

    def _accept_again(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        if not self._draining:
            loop.add_reader(listener, self._accept, loop, listener)

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def opened(self, connection: Held) -> bool:
        self._coming.discard(connection)
        self._connections.add(connection)
        self._inhabited.set()
        if self._draining:
            connection.drain()
        return len(self._connections) <= self.limits.connections or self._make_room(connection)

    def _make_room(self, new: Held) -> bool:
        """Close the connection that has been of no use for longest. False when all that are allowed are in use.

        Otherwise as many silent clients as there may be connections would keep everybody else out.
        """
        used = [each for each in self._connections if not (isinstance(each, Connection) and each.leaving)]
        if len(used) <= self.limits.connections:
            return True
        now = self.now()
        longest = max((each for each in used if each is not new), key=lambda each: self._useless(each, now))
        if self._useless(longest, now) < 0:
            return False
        self._connections.discard(longest)
        longest.close()
        return True

    def _useless(self, connection: Held, now: float) -> float:
        """Seconds beyond those in which every client may think, or be slow with a head. Negative: to be left alone."""
        if connection.idle:
            return now - (connection.deadline - self.limits.idle_seconds) - _THINKING_SECONDS
        if isinstance(connection, Connection) and connection.stalled:
            return now - (connection.deadline - self.limits.request_seconds) - _HEAD_SECONDS
        return -1.0

    def closed(self, connection: Held) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._changed.set()
            self._inhabited.clear()

    async def _until_empty(self, seconds: float) -> None:
        self._changed.clear()
        if not self._connections:
            return
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            _logger.debug("%d connections left after %g s", len(self._connections), seconds)

    async def _sweep(self) -> None:
        """A server without connections sleeps: every second of that would cost an idle device more than anything else here."""
        while True:
            await self._inhabited.wait()
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self.now()
            for connection in [each for each in self._connections if each.deadline < now]:
                connection.expire()
