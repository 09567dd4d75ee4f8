# SPDX-License-Identifier: Apache-2.0
"""Clients in a process of their own that never stop asking, whatever happens to the runners. Also used by a benchmark.

`python kill_load.py ADDRESS MODELS CLIENTS`, until its standard input ends; then a JSON Tally on standard output. ADDRESS is
HOST:PORT or a unix socket's path, MODELS the names to ask in turn, separated by commas; every fourth client makes a new
connection for every request.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode()

STAYS = 16
"""Requests to one model before the next one is asked."""


@dataclass(kw_only=True)
class Tally:
    asked: int = 0
    right: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # one clear 503 each, by code
    dropped: int = 0
    wrong: int = 0
    slowest: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.asked += other.asked
        self.right += other.right
        self.refused = dict(Counter(self.refused) + Counter(other.refused))
        self.dropped += other.dropped
        self.wrong += other.wrong
        self.slowest = max(self.slowest, other.slowest)
        self.problems += other.problems


class Client(threading.Thread):
    def __init__(self, address: str, models: list[str], stop: threading.Event, *, keep_alive: bool) -> None:
        super().__init__(daemon=True)
        self.tally = Tally()
        self._address = address
        self._requests = [
            b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: box\r\nContent-Length: %d\r\n\r\n%s"
            % (name.encode(), len(BODY), BODY)
            for name in models
        ]
        self._models = models
        self._stop_asking = stop
        self._keep_alive = keep_alive

    def run(self) -> None:
        connected, turn, used = self._connect(), 0, 0
        while not self._stop_asking.is_set():
            turn += 1
            which = turn // STAYS % len(self._requests)
            began = time.monotonic()
            self.tally.asked += 1
            try:
                connected.sendall(self._requests[which])
                status, headers, body = read_answer(connected)
                closing = headers.get("connection") == "close"
                self._judge(status, headers, body, self._models[which])
            except OSError as error:
                closing = True
                self.tally.dropped += 1
                self.tally.problems.append(f"{error!r} at {used} on its connection, {self._address}")
            used += 1
            self.tally.slowest = max(self.tally.slowest, time.monotonic() - began)
            if closing or not self._keep_alive:
                connected.close()
                connected, used = self._connect(), 0
        connected.close()

    def _judge(self, status: int, headers: dict[str, str], body: bytes, model: str) -> None:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        match answer:
            case {"model_name": name, "outputs": [{"name": "scores", "shape": [1, 3], "data": [_, _, _]}, *_]} if (
                status == 200 and name == model
            ):
                self.tally.right += 1
            case {"code": code, "error": str()} if status == 503 and "retry-after" in headers:
                self.tally.refused[code] = self.tally.refused.get(code, 0) + 1
            case _:
                self.tally.wrong += 1
                self.tally.problems.append(f"{status} {body[:200]!r}")

    def _connect(self) -> socket.socket:
        unix = self._address.startswith("/")
        connected = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        connected.settimeout(30)
        host, _, port = self._address.rpartition(":")
        connected.connect(self._address if unix else (host, int(port)))
        return connected


def read_answer(connected: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One whole answer, and nothing after it. Raises OSError."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connected)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        body += _more(connected)
    if len(body) > length:
        raise OSError(f"{len(body) - length} bytes after the answer: {body[length:][:60]!r}")
    return int(lines[0].split()[1]), headers, body


def _more(connected: socket.socket) -> bytes:
    data = connected.recv(65536)
    if not data:
        raise ConnectionError("end of file")
    return data


class Load:
    """The clients' process."""

    def __init__(self, address: str, models: str, *, clients: int) -> None:
        command = [sys.executable, str(Path(__file__)), address, models, str(clients)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.tally = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        out, _ = self._process.communicate(timeout=60)
        self.tally = Tally(**json.loads(out))


def main() -> int:
    address, models, clients = sys.argv[1:]
    stop = threading.Event()
    threads = [Client(address, models.split(","), stop, keep_alive=number % 4 != 3) for number in range(int(clients))]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    total = Tally()
    for thread in threads:
        thread.join(40)
        total.add(thread.tally)
    total.problems = total.problems[:20]
    sys.stdout.write(json.dumps(asdict(total)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
