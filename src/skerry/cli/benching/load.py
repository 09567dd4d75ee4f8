# SPDX-License-Identifier: Apache-2.0
"""The process that asks: closed loops over N connections with prebuilt bytes, or a model run in this very process.

`python -m skerry.cli.benching.load`; one JSON object a line on stdin (`Order`), one on stdout (`Timing` or `Trouble`). It is a
process of its own so that a progress bar does not compete with the loop for Python's lock.
"""

from __future__ import annotations

import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from skerry.cli.benching import inputs
from skerry.cli.benching.inputs import Feed, Inputs
from skerry.cli.benching.statistics import quantile
from skerry.client import Client
from skerry.client import address as addresses
from skerry.client.address import Address, Scheme
from skerry.errors import SkerryError
from skerry.runtime import bundle_dir
from skerry.runtime.model import Model

_PATIENCE_SECONDS: Final = 30.0
_CHUNK: Final = 1 << 18
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Dial(Struct, frozen=True, kw_only=True, tag="dial"):
    """Remember a server and what to ask it, in turn."""

    url: str
    requests: list[bytes]


class Load(Struct, frozen=True, kw_only=True, tag="load"):
    """Load a variant of an unpacked bundle to be run here."""

    folder: str
    variant: str
    random: bool


class Run(Struct, frozen=True, kw_only=True, tag="run"):
    """`connections` closed loops (threads, for a model in process) for `seconds`, after `warm` requests nobody counts."""

    seconds: float
    connections: int = 1
    warm: int = 10


class Share(Struct, frozen=True, kw_only=True, tag="share"):
    """Remember a server that shares memory, asked through `skerry.client`: its own cost is in the latencies, as for any caller.

    Inputs are those of the bundle in `folder`; without one, made up from what the model says of itself.
    """

    url: str
    model: str
    folder: str = ""
    random: bool = False


Order = Dial | Load | Share | Run


class Timing(Struct, frozen=True, kw_only=True, tag="timing"):
    """Latencies in microseconds. `asked` counts the warm-up too, `changed` answers unlike the first one to the same bytes;
    `cpu` is this process's own CPU per request.
    """

    requests: int
    asked: int
    changed: int
    seconds: float
    p10: float
    p50: float
    p90: float
    p99: float
    cpu: float


class Trouble(Struct, frozen=True, kw_only=True, tag="trouble"):
    problem: str


Reply = Timing | Trouble


class _Failed(Exception):
    """The server refused, hung up or said nothing: there is no figure then."""


def connect(address: Address) -> socket.socket:
    """Raises OSError."""
    if address.scheme is Scheme.HTTP:
        connection = socket.create_connection((address.host, address.port), timeout=_PATIENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PATIENCE_SECONDS)
        connection.connect(address.path)
    return connection


class _Connection:
    """One connection in its closed loop. `turn` is the request it asks next."""

    def __init__(self, address: Address, turn: int) -> None:
        self.socket = connect(address)
        self.turn = turn
        self.begun = 0.0
        self._parts: list[bytes] = []
        self._missing = -1  # bytes; -1 = the head is not in yet

    def ask(self, request: bytes) -> None:
        self._parts.clear()
        self._missing = -1
        self.begun = time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> bytes | None:
        """The whole answer, once it is there."""
        data = self.socket.recv(_CHUNK)
        if not data:
            raise _Failed("the server closed the connection")
        self._parts.append(data)
        if self._missing < 0:
            data = b"".join(self._parts)
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return None
            self._parts = [data]
            self._missing = _length(data[:head]) + head + 4 - len(data)
        else:
            self._missing -= len(data)
        return b"".join(self._parts) if self._missing <= 0 else None


def _length(head: bytes) -> int:
    status = head[9:12]
    match = _LENGTH.search(head)
    if status != b"200":
        line = head.partition(b"\r\n")[0].decode("ascii", "replace")
        raise _Failed(f"the server answered {line}")
    if match is None:
        raise _Failed("an answer without Content-Length")
    return int(match[1])


class Server:
    """What `Dial` named. Connections are made anew for every run: a kept one could be closed between two."""

    def __init__(self, dial: Dial) -> None:
        self._address = addresses.parse(dial.url)
        self._requests = dial.requests
        self._answers: dict[int, bytes] = {}
        self._changed = 0

    def run(self, order: Run) -> Timing:
        callers = [_Connection(self._address, turn) for turn in range(order.connections)]
        self._changed = 0
        try:
            return self._loop({caller.socket.fileno(): caller for caller in callers}, order)
        finally:
            for caller in callers:
                caller.socket.close()

    def _loop(self, callers: dict[int, _Connection], order: Run) -> Timing:
        times: list[float] = []
        with select.epoll() as poll:
            for number, caller in callers.items():
                poll.register(number, select.EPOLLIN)
                caller.ask(self._requests[caller.turn % len(self._requests)])
            asked, begun, cpu = 0, 0.0, time.process_time()
            while not begun or time.perf_counter() < begun + order.seconds:
                ready = poll.poll(_PATIENCE_SECONDS)
                if not ready:
                    raise _Failed(f"no answer in {_PATIENCE_SECONDS:g} s")
                for number, _ in ready:
                    caller = callers[number]
                    answer = caller.read()
                    if answer is not None:
                        self._take(caller, answer, times if begun else [])
                        asked += 1
                begun = begun or (time.perf_counter() if asked >= order.warm else 0.0)
            seconds, used = time.perf_counter() - begun, time.process_time() - cpu
        return _timing(times, asked=asked, changed=self._changed, seconds=seconds, cpu=used)

    def _take(self, caller: _Connection, answer: bytes, times: list[float]) -> None:
        times.append(time.perf_counter() - caller.begun)
        number = caller.turn % len(self._requests)
        body = answer.partition(b"\r\n\r\n")[2]
        self._changed += self._answers.setdefault(number, body) != body
        caller.turn += 1
        caller.ask(self._requests[caller.turn % len(self._requests)])


class Caller:
    """A function called in a loop, in this process: a model of `Load`, or a client of `Share`."""

    def __init__(self, call: Callable[[Feed], object], feeds: Inputs) -> None:
        self._call = call
        self._feeds = feeds

    def run(self, order: Run) -> Timing:
        for turn in range(order.warm):
            self._call(self._feeds[turn % len(self._feeds)])
        times: list[list[float]] = [[] for _ in range(order.connections)]
        begun, cpu = time.perf_counter(), time.process_time()
        end = begun + order.seconds
        threads = [threading.Thread(target=self._loop, args=(each, end)) for each in times[1:]]
        for thread in threads:
            thread.start()
        self._loop(times[0], end)
        for thread in threads:
            thread.join()
        seconds, used = time.perf_counter() - begun, time.process_time() - cpu
        every = [value for each in times for value in each]
        return _timing(every, asked=len(every), changed=0, seconds=seconds, cpu=used)

    def _loop(self, times: list[float], end: float) -> None:
        turn = 0
        while (begun := time.perf_counter()) < end:
            self._call(self._feeds[turn % len(self._feeds)])
            times.append(time.perf_counter() - begun)
            turn += 1


def _loaded(order: Load) -> Caller:
    folder = Path(order.folder)
    model = Model(folder, order.variant)
    return Caller(model.infer, inputs.of_bundle(folder, bundle_dir.read_config(folder), random=order.random))


def _shared(order: Share) -> Caller:
    client = Client(order.url)
    if order.folder:
        folder = Path(order.folder)
        feeds = inputs.of_bundle(folder, bundle_dir.read_config(folder), random=order.random)
    else:
        feeds = inputs.made_up(inputs.io_of(client.metadata(order.model)))
    client.infer(order.model, feeds[0])
    if "memfd:" not in Path("/proc/self/maps").read_text("utf-8"):  # the client went over the unix socket instead
        raise _Failed("the server shares no memory for this model")
    return Caller(lambda feed: client.infer(order.model, feed), feeds)


def _timing(times: list[float], *, asked: int, changed: int, seconds: float, cpu: float) -> Timing:
    ordered = sorted(value * 1e6 for value in times)
    p10, p50, p90, p99 = (quantile(ordered, share) for share in (0.1, 0.5, 0.9, 0.99))
    return Timing(
        requests=len(ordered),
        asked=asked,
        changed=changed,
        seconds=seconds,
        p10=p10,
        p50=p50,
        p90=p90,
        p99=p99,
        cpu=cpu * 1e6 / max(1, asked),
    )


def _obey(order: Order, run: Callable[[Run], Timing] | None) -> Callable[[Run], Timing] | Timing:
    match order:
        case Dial():
            return Server(order).run
        case Load():
            return _loaded(order).run
        case Share():
            return _shared(order).run
        case Run():
            if run is None:
                raise _Failed("nothing to run yet")
            return run(order)


def main() -> None:
    decoder = msgspec.json.Decoder(Order)
    run: Callable[[Run], Timing] | None = None
    for line in sys.stdin.buffer:
        reply: Reply
        try:
            done = _obey(decoder.decode(line), run)
            if isinstance(done, Timing):
                reply = done
            else:
                run = done
                reply = done(Run(seconds=0, warm=1))  # the first answer: from here on it is known to work
        except (SkerryError, OSError, _Failed) as error:
            reply = Trouble(problem=str(error) or type(error).__name__)
        sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
