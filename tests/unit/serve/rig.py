# SPDX-License-Identifier: Apache-2.0
"""Endpoints over real engines and a connection over a transport in memory: bytes in, answers out, no sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from contracts.engine.models import affine
from skerry.oip.messages import ModelSignature
from skerry.runtime.costs import Costs
from skerry.runtime.onnx import OnnxEngine
from skerry.serve.desk import Desk, Surroundings
from skerry.serve.endpoints import Endpoints, Gauges
from skerry.serve.http.connection import Connection
from skerry.serve.http.receiving import Limits
from skerry.serve.scheduling.lanes import Turn
from skerry.serve.served import Served
from skerry.testing.clock import VirtualClock


class HeldPool:
    """Runs a job when `release` is called; `hold=False` runs it at once."""

    def __init__(self, *, hold=False, threads=1):
        self.hold = hold
        self.threads = threads
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)
        if not self.hold:
            self.release()

    def deliver(self, take):
        take()

    def release(self):
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()


class MemoryTransport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.sent = b""
        self.closed = self.aborted = self.eof = self.reading_paused = False
        self.buffered = 0
        self.full = None  # called by the next write, which is then more than the client takes

    def write(self, data):
        assert not self.eof
        self.sent += data
        if self.full is not None:
            self.buffered += len(data)
            self.full()

    def writelines(self, parts):
        self.write(b"".join(parts))

    def write_eof(self):
        self.eof = True

    def close(self):
        self.closed = True

    def abort(self):
        self.aborted = True

    def pause_reading(self):
        assert not self.reading_paused
        self.reading_paused = True

    def resume_reading(self):
        assert self.reading_paused
        self.reading_paused = False

    def get_write_buffer_size(self):
        return self.buffered


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        size = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(size)] if size else self.body)

    @property
    def tail(self):
        return self.body[int(self.headers["inference-header-content-length"]) :]


def parse(data, *, head_only=False):
    """Every answer in `data`; interim ones (100) have no body."""
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = 0 if head_only else int(headers.get("content-length", 0))
        answers.append(Answer(int(first.split()[1]), headers, data[:size]))
        assert len(data) >= size
        data = data[size:]
    return answers


class Rig:
    """`models`: name -> ONNX bytes, which `load` makes an engine of. `cost` decides inline or worker."""

    def __init__(
        self,
        models=None,
        *,
        load=OnnxEngine.load,
        cost=0.0,
        hold=False,
        limits=None,
        witness=None,
        body_limit=64 * 1024 * 1024,
        queue=64,
    ):
        self.clock = VirtualClock()
        self.limits = limits or Limits()
        self.pool = HeldPool(hold=hold)
        self.known = {}
        self.elsewhere = self.http2 = None
        self.several = False
        self.served = {
            name: Served(
                signature=ModelSignature(name=name, version="1", variant="fp32", io=(engine := load(model)).io),
                engine=engine,
                costs=Costs(one=cost),
            )
            for name, model in (models or {"m": affine()}).items()
        }
        turn = Turn(now=self.clock.monotonic, soon=lambda flush: flush())
        around = Surroundings(clock=self.clock, pool=self.pool, turn=turn, queue=queue)
        self.desk = Desk(self.served, around, witness)
        self.endpoints = Endpoints(
            self.desk,
            version="9",
            gauges=Gauges(resident_bytes=lambda: 7, connections=lambda: 1, waiting=lambda: 0),
            limit=body_limit,
        )
        self.open = self.held = 0
        self.connect()

    # --- Host

    def now(self):
        return self.clock.monotonic()

    def handle(self, request, reply):
        self.endpoints.handle(request, reply)

    def opened(self, connection):
        self.open += 1
        return self.open <= self.limits.connections

    def closed(self, connection):
        self.open -= 1

    # --- client

    def connect(self):
        self.connection = Connection(self)
        self.transport = MemoryTransport()
        self.connection.connection_made(self.transport)

    def send(self, data):
        """Feed bytes; what was answered since the last call."""
        self.connection.data_received(data)
        return self.take()

    def take(self, *, head_only=False):
        sent, self.transport.sent = self.transport.sent, b""
        return parse(sent, head_only=head_only)

    def get(self, path, method="GET"):
        self.connection.data_received(f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        [answer] = self.take(head_only=method == "HEAD")
        return answer

    def post(self, path, body=b"", **headers):
        [answer] = self.send(post(path, body, **headers))
        return answer

    def infer(self, document, tail=None, *, path="/v2/models/m/infer", **headers):
        """`document` as JSON (bytes as they are); with `tail` as a binary request."""
        head = document if isinstance(document, bytes) else json.dumps(document).encode()
        if tail is None:
            return self.post(path, head, **headers)
        headers.setdefault("Inference_Header_Content_Length", len(head))
        return self.post(path, head + tail, **headers)


def post(path, body=b"", **headers):
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
