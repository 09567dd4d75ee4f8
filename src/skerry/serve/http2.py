# SPDX-License-Identifier: Apache-2.0
"""Connections that begin as HTTP/2 go on as gRPC. What that takes is imported when the first one comes, beside the loop:
a runner nobody asks by gRPC has neither the memory nor the time of it, and nobody waits for the import but who needs it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from skerry.serve.access import Log
from skerry.serve.desk import Desk
from skerry.serve.http.server import HttpServer
from skerry.serve.shm.regions import Regions

if TYPE_CHECKING:
    from skerry.serve.grpc.connection import GrpcConnection
    from skerry.serve.grpc.exchange import Service

_NEVER: Final = float("inf")
_logger = logging.getLogger(__name__)

Make = Callable[[HttpServer], "GrpcConnection"]


class Http2:
    """`limit` bounds a message once it is inflated, in bytes. `log` takes a line a call. Lives on the loop's
    thread.
    """

    def __init__(
        self, desk: Desk, *, version: str, limit: int, regions: Regions | None = None, log: Log | None = None
    ) -> None:
        self._desk = desk
        self._version = version
        self._limit = limit
        self._regions = regions
        self._log = log
        self._make: Make | None = None
        self._waiting: list[_Arriving] = []
        self._loading = False

    def take(self, transport: asyncio.Transport, server: HttpServer, data: bytes) -> None:
        """`data` is what came in so far, from the very beginning."""
        arriving = _Arriving(transport, server, data)
        if self._make is not None:
            arriving.go_on(self._make)
            return
        transport.set_protocol(arriving)
        transport.pause_reading()
        server.opened(arriving)
        self._waiting.append(arriving)
        if not self._loading:
            self._loading = True
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._load, args=(loop,), name="import-grpc", daemon=True).start()

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread of its own."""
        make: Make | None
        try:
            make = _import(self._desk, version=self._version, limit=self._limit, regions=self._regions, log=self._log)
        except ImportError as error:
            _logger.error("gRPC is not served: %s", error)  # noqa: TRY400 - what is not installed has no trace worth reading
            make = None
        try:
            loop.call_soon_threadsafe(self._loaded, make)
        except RuntimeError:
            _logger.debug("gRPC came too late: the loop is closed")

    def _loaded(self, make: Make | None) -> None:
        self._make = make
        self._loading = False
        waiting, self._waiting = self._waiting, []
        for arriving in waiting:
            arriving.arrived(make)


def _import(desk: Desk, *, version: str, limit: int, regions: Regions | None, log: Log | None) -> Make:
    """Raises ImportError where the extra is not installed."""
    from skerry.serve.grpc.connection import GrpcConnection
    from skerry.serve.grpc.service import GrpcService

    service: Service = GrpcService(desk, version=version, limit=limit, regions=regions)
    if log is not None:
        from skerry.serve.grpc.logged import LoggedService

        service = LoggedService(service, now=log.now, write=log.write)
    return lambda server: GrpcConnection(server, service)


class _Arriving(asyncio.Protocol):
    """A connection between the two protocols, not read meanwhile."""

    deadline = _NEVER
    idle = False

    def __init__(self, transport: asyncio.Transport, server: HttpServer, data: bytes) -> None:
        self._transport = transport
        self._server = server
        self._data = data
        self._lost = False

    def go_on(self, make: Make) -> None:
        connection = make(self._server)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        connection.data_received(self._data)

    def arrived(self, make: Make | None) -> None:
        """The import is over; `make` is None when it failed."""
        if self._lost:
            return
        self._server.closed(self)
        if make is None:
            self._transport.close()
            return
        self.go_on(make)
        self._transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost = True
        self._server.closed(self)

    def drain(self) -> None:
        """The connection it becomes is told, too."""

    def close(self) -> None:
        self._transport.close()

    def expire(self) -> None:
        """Never due."""
