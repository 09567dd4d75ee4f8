# SPDX-License-Identifier: Apache-2.0
"""Every way into a runner: its own TCP port and unix socket, the address of the whole box, and connections handed to it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from skerry.runner.box import Box, Handler
from skerry.runner.exchange import Incoming, Outgoing
from skerry.runner.keeping import Keeping
from skerry.serve.http.server import HttpServer
from skerry.serve.http2 import Http2
from skerry.wire.v1.runner import Routes, Start


class Entrances:
    """`own` serves what comes in by the workload's own sockets. Use inside the event loop."""

    def __init__(
        self, start: Start, handler: Handler, keeping: Keeping | None, *, now: Callable[[], float], http2: Http2 | None
    ) -> None:
        take = http2.take if http2 is not None else None
        self._start = start
        self._handler = handler
        self.own = HttpServer(handler, now=now, ledger=keeping.ledger(box=False) if keeping else None, http2=take)
        self._all: HttpServer | None = None
        self._box: Box | None = None
        self._outgoing: Outgoing | None = None
        if start.box_fd >= 0:
            self._outgoing = Outgoing()
            self._box = Box(handler, self._outgoing, workload=start.workload)
            self._all = HttpServer(
                self._box.handle,
                now=now,
                ledger=keeping.ledger(box=True) if keeping else None,
                elsewhere=self._box.elsewhere,
                http2=take,
            )
        self._incoming: Incoming | None = None
        if start.exchange_fd >= 0:
            self._incoming = Incoming(os.dup(start.exchange_fd), own=self.own, box=self._all, now=now)

    @property
    def connections(self) -> int:
        return self.own.connections + (self._all.connections if self._all else 0)

    @property
    def several(self) -> bool:
        """See HttpServer."""
        return self.own.several or (self._all is not None and self._all.several)

    async def open(self) -> None:
        await self.own.start(listener(self._start.listen_fd))
        if self._start.unix_fd >= 0:
            await self.own.start(listener(self._start.unix_fd))
        if self._all is not None:
            await self._all.start(listener(self._start.box_fd))
        if self._incoming is not None:
            self._incoming.start()

    def routes(self, routes: Routes) -> None:
        """Who else is on the box, from now on."""
        if self._box is not None and self._all is not None:
            self._box.table.set(routes)
            self._all.known.clear()

    async def drain(self, *, linger: float, limit: float) -> None:
        """See HttpServer.drain."""
        if self._incoming is not None:
            self._incoming.stop()
        servers = [each for each in (self.own, self._all) if each is not None]
        await asyncio.gather(*(each.drain(linger=linger, limit=limit) for each in servers))
        if self._outgoing is not None:
            self._outgoing.close()


def listener(fd: int) -> socket.socket:
    """A copy of an inherited one: closing it leaves the other open."""
    inherited = socket.socket(fileno=os.dup(fd))
    inherited.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return inherited
