# SPDX-License-Identifier: Apache-2.0
"""Clients that never stop asking while runners are exchanged behind one listening socket. Also used by a benchmark."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from acceptance.runner_harness import RunnerProcess
from skerry.wire.v1.runner import Drain, Drained

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})


@dataclass(kw_only=True)
class Tally:
    asked: int = 0
    dropped: int = 0
    reconnects: int = 0
    problems: tuple[str, ...] = ()


class Client(threading.Thread):
    """Keeps one connection as long as the server lets it; a request without a right answer is dropped, never repeated."""

    def __init__(self, address: str, stop: threading.Event, *, keep_alive: bool) -> None:
        super().__init__(daemon=True)
        self.tally = Tally()
        self._stop_asking = stop
        self._address = address
        self._keep_alive = keep_alive

    def run(self) -> None:
        connection = self._connect()
        while not self._stop_asking.is_set():
            self.tally.asked += 1
            try:
                connection.request("POST", "/v2/models/digits/infer", BODY)
                answer = connection.getresponse()
                good = answer.status == 200 and b"scores" in answer.read()
                closing = answer.will_close
            except (OSError, http.client.HTTPException) as error:
                good, closing = False, True
                self.tally.problems += (repr(error),)
            self.tally.dropped += not good
            if closing or not self._keep_alive:
                connection.close()
                connection = self._connect()
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        self.tally.reconnects += 1
        return http.client.HTTPConnection(self._address, timeout=20)


def switch_under_load(bundles: tuple[Path, Path], listener: socket.socket, *, switches: int, clients: int = 4) -> Tally:
    """Exchange the runner `switches` times; the sum over all clients."""
    stop = threading.Event()
    runner = RunnerProcess(bundles[0], listener).serve()
    threads = [Client(runner.url, stop, keep_alive=number % 4 != 3) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, switches + 1):
            new = RunnerProcess(bundles[number % 2], listener).serve()
            runner.send(Drain())
            runner.expect(Drained)
            if runner.wait() != 0:
                raise AssertionError(runner.stderr.decode())
            runner.stop()
            runner = new
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        runner.stop()
    tallies = [thread.tally for thread in threads]
    return Tally(
        asked=sum(tally.asked for tally in tallies),
        dropped=sum(tally.dropped for tally in tallies),
        reconnects=sum(tally.reconnects for tally in tallies),
        problems=tuple(problem for tally in tallies for problem in tally.problems),
    )
