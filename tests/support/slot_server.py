# SPDX-License-Identifier: Apache-2.0
"""A server on a unix socket (and a TCP port) in a thread of this process: real sockets, real engines, and insight."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from skerry.bundle.manifest import Io
from skerry.effects.system import SystemClock
from skerry.oip.messages import ModelSignature
from skerry.runtime.costs import Costs
from skerry.runtime.onnx import OnnxEngine
from skerry.serve.desk import Desk, Surroundings
from skerry.serve.endpoints import Endpoints, Gauges
from skerry.serve.http.receiving import Limits
from skerry.serve.http.server import HttpServer
from skerry.serve.scheduling.lanes import Turn
from skerry.serve.scheduling.workers import WorkerPool
from skerry.serve.served import Served
from skerry.serve.shm.regions import Regions
from skerry.serve.shm.slots import SlotLimits, Slots

T = TypeVar("T")


class SlotServer:
    """`models`: name -> ONNX bytes. `cost` decides inline or worker."""

    def __init__(
        self,
        path: Path,
        models: dict[str, bytes],
        *,
        cost: float = 0.0,
        limits: SlotLimits | None = None,
        uvloop: bool = False,
        ios: dict[str, Io] | None = None,
        regions: Regions | None = None,
    ) -> None:
        self.path = path
        self._cost = cost
        self._limits = limits
        self._models = models
        self._ios = ios or {}
        self._regions = regions
        self._new_loop = __import__("uvloop").new_event_loop if uvloop else asyncio.new_event_loop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main)

    @property
    def url(self) -> str:
        return f"shm://{self.path}"

    @property
    def http(self) -> str:
        return f"unix://{self.path}"

    @property
    def tcp(self) -> str:
        return f"127.0.0.1:{self._tcp.getsockname()[1]}"

    def call(self, function: Callable[[], T]) -> T:
        """Run it on the server's thread."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def drain(self) -> None:
        future = asyncio.run_coroutine_threadsafe(self.server.drain(linger=0.05, limit=5.0), self._loop)
        future.result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _main(self) -> None:
        self._loop = self._new_loop()
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        clock = SystemClock()
        pool = WorkerPool(self._loop, threads=2)
        turn = Turn(now=clock.monotonic, soon=self._loop.call_soon)
        self.served = {name: self._load(name, model) for name, model in self._models.items()}
        self.desk = desk = Desk(self.served, Surroundings(clock=clock, pool=pool, turn=turn))
        self.slots = Slots(desk, self._limits)
        endpoints = Endpoints(
            desk,
            version="9",
            gauges=Gauges(
                resident_bytes=lambda: 0, connections=lambda: self.server.connections, waiting=lambda: desk.waiting
            ),
            slots=self.slots,
            regions=self._regions,
        )
        self.server = HttpServer(endpoints.handle, now=clock.monotonic, limits=Limits())
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self._tcp = socket.create_server(("127.0.0.1", 0))
        await self.server.start(listener)
        await self.server.start(self._tcp)
        self._ready.set()
        await self._stop.wait()
        await self.server.drain(linger=0, limit=0.2)
        pool.close()

    def _load(self, name: str, model: bytes) -> Served:
        engine = OnnxEngine.load(model, name=name)
        signature = ModelSignature(name=name, version="1", variant="fp32", io=self._ios.get(name, engine.io))
        return Served(signature=signature, engine=engine, costs=Costs(one=self._cost))
