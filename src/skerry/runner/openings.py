# SPDX-License-Identifier: Apache-2.0
"""The ways into a runner over its life: tried in private, opened, at rest and opened again.

Every opening has entrances of its own over copies of the agent's sockets, so that one which still finishes what it has holds up
nothing. The sockets themselves stay open until the end: a runner at rest can serve again at once, and whoever comes after a
killed agent finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from skerry.runner.box import Handler
from skerry.runner.entrances import Entrances, listener
from skerry.runner.keeping import Keeping
from skerry.serve.http.server import HttpServer
from skerry.serve.http2 import Http2
from skerry.wire.v1.runner import Routes, Start


class Openings:
    """`linger` and `limit` as HttpServer.drain has them. Use inside the event loop, one call at a time."""

    def __init__(
        self,
        start: Start,
        handler: Handler,
        *,
        now: Callable[[], float],
        linger: float,
        limit: float,
        http2: Http2 | None = None,
    ) -> None:
        self._start = start
        self._handler = handler
        self._now = now
        self._http2 = http2
        self._linger = linger
        self._limit = limit
        self._keeping = Keeping(start.keeper_fd) if start.keeper_fd >= 0 else None
        self._open: Entrances | None = None
        self._private: HttpServer | None = None
        self._routes: Routes | None = None
        self._draining: dict[asyncio.Task[None], Entrances | HttpServer] = {}

    @property
    def connections(self) -> int:
        open_ones = self._open.connections if self._open is not None else 0
        private = self._private.connections if self._private is not None else 0
        return open_ones + private + sum(each.connections for each in self._draining.values())

    @property
    def alone(self) -> bool:
        """No other request can come in this turn of the loop."""
        return self.connections == 1 and not (self._open is not None and self._open.several)

    @property
    def in_private(self) -> bool:
        return self._private is not None

    @property
    def resting(self) -> bool:
        return self._open is None and self._private is None

    async def open(self) -> None:
        """For clients."""
        if self._open is not None:
            return
        self._end_private()
        fresh = Entrances(self._start, self._handler, self._keeping, now=self._now, http2=self._http2)
        if self._routes is not None:
            fresh.routes(self._routes)
        await fresh.open()
        self._open = fresh

    async def open_in_private(self) -> None:
        """For the runner of the current version only."""
        if self._private is None and self._open is None:
            self._private = HttpServer(self._handler, now=self._now)
            await self._private.start(listener(self._start.private_fd))

    def rest(self, rested: Callable[[], None]) -> None:
        """No connection is accepted from now on; `rested` is called when the last one is gone."""
        self._end_private()
        leaving, self._open = self._open, None
        if leaving is None:
            rested()
        else:
            self._drain(leaving).add_done_callback(lambda _: rested())

    def routes(self, routes: Routes) -> None:
        """Who else is on the box, from now on."""
        self._routes = routes
        if self._open is not None:
            self._open.routes(routes)

    async def close(self) -> None:
        """For good. Returns when the last connection is gone."""
        self.rest(lambda: None)
        start = self._start
        for descriptor in (start.listen_fd, start.unix_fd, start.box_fd, start.exchange_fd, start.private_fd):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        if self._draining:
            await asyncio.wait(self._draining)

    def _end_private(self) -> None:
        leaving, self._private = self._private, None
        if leaving is not None:
            self._drain(leaving)

    def _drain(self, leaving: Entrances | HttpServer) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(leaving.drain(linger=self._linger, limit=self._limit))
        self._draining[task] = leaving
        task.add_done_callback(lambda done: self._draining.pop(done, None))
        return task
