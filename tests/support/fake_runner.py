# SPDX-License-Identifier: Apache-2.0
"""A runner without an engine: the control protocol and one HTTP answer, misbehaving as the bundle's labels ask.

labels: self-test=fail | load=fail | slow-load=SECONDS | hang-if=FILE | fail-if=FILE (while that exists) | crash=SECONDS after serving | errors=RATE | p95=MS | results=N per figures window
Answers every request with the bundle's name:version, closing the connection.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any


class FakeRunner:
    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.buffer = b""
        self.draining = False
        self.resting = False
        self.sent = 0
        self.acked = 0
        self.requests = 0

    def send(self, **event: Any) -> None:
        try:
            self.control.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            self.control.close()

    def commands(self) -> list[dict[str, Any]]:
        try:
            data = self.control.recv(65536)
        except OSError:  # killed with something of ours unread
            data = b""
        if not data:
            return [{"type": "gone"}]
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "draining", True))
        start = self.commands()[0]
        config = json.loads((Path(start["bundle_dir"]) / "skerry.json").read_bytes())
        labels = config.get("labels", {})
        select.select([], [], [], float(labels.get("slow-load", "0")))
        if Path(labels.get("hang-if", "/no/such")).exists():
            self.wait_for_the_end()
        if labels.get("load") == "fail" or Path(labels.get("fail-if", "/no/such")).exists():
            self.send(type="failed", code="SKY-1002", message="cannot load")
            return 1
        self.send(type="loaded", load_ms=1.0, rss_mib=1.0, engine="fake")
        passed = labels.get("self-test") != "fail"
        self.send(type="self-tested", passed=passed, samples=1, problem="" if passed else "output y differs")
        if not passed:
            return 5
        return self.wait(start, config, labels)

    def wait_for_the_end(self) -> None:
        while all(command["type"] != "gone" for command in self.commands()):
            pass
        os._exit(0)

    def wait(self, start: dict[str, Any], config: dict[str, Any], labels: dict[str, str]) -> int:
        while True:
            for command in self.commands():
                if command["type"] == "serve":
                    return self.serve(start, config, labels)
                if command["type"] in {"drain", "gone"}:
                    return 0

    def serve(self, start: dict[str, Any], config: dict[str, Any], labels: dict[str, str]) -> int:
        listening = socket.socket(fileno=start["listen_fd"])
        listening.setblocking(False)
        answer = f"{config['name']}:{config['version']} {os.getpid()}".encode()
        self.send(type="serving", pid=os.getpid())
        began = told = time.monotonic()
        watched: list[socket.socket] = [listening, self.control]
        while not self.draining:
            awake = [each for each in watched if each is not listening or not self.resting]
            ready, _, _ = select.select(awake, [], [], 0.02)
            if self.control in ready:
                watched = self.obey(watched)
            if listening in ready:
                self.answer(listening, answer)
            now = time.monotonic()
            if "crash" in labels and now - began >= float(labels["crash"]):
                os._exit(42)
            if now - told >= start["figures_seconds"]:
                told = now
                self.figures(start, labels)
        while not self.resting and self.answer(listening, answer):
            pass
        listening.close()
        if self.control in watched:
            self.hand_over()
        return 0

    def obey(self, watched: list[socket.socket]) -> list[socket.socket]:
        for command in self.commands():
            match command["type"]:
                case "drain":
                    self.draining = True
                case "acked":
                    self.acked = command["through"]
                case "rest":
                    self.resting = True
                    self.send(type="resting")
                case "serve":
                    self.resting = False
                    self.send(type="serving", pid=os.getpid())
                case "gone":
                    self.draining = self.draining or self.resting
                    return [each for each in watched if each is not self.control]
                case _:
                    pass
        return watched

    def answer(self, listening: socket.socket, answer: bytes) -> bool:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return False
        with connection:
            connection.settimeout(5)
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode() + answer)
        self.requests += 1
        return True

    def figures(self, start: dict[str, Any], labels: dict[str, str]) -> None:
        p95 = float(labels.get("p95", "1"))
        requests = max(self.requests, 100 if "errors" in labels else 0)
        self.requests = 0
        self.send(
            type="figures",
            window_seconds=start["figures_seconds"],
            requests=requests,
            errors=int(requests * float(labels.get("errors", "0"))),
            latency_p50_ms=p95 / 2,
            latency_p95_ms=p95,
            latency_p99_ms=p95,
            probes=1,
            rss_mib=1.0,
        )
        for _ in range(int(labels.get("results", "0"))):
            self.sent += 1
            self.send(
                type="result",
                n=self.sent,
                event_id=f"{os.getpid()}-{self.sent}",
                at=time.time(),
                outputs={"y": [float(self.sent)]},
            )

    def hand_over(self) -> None:
        end = time.monotonic() + 3
        while self.acked < self.sent and time.monotonic() < end:
            if select.select([self.control], [], [], 0.05)[0] and self.control not in self.obey([self.control]):
                break
        self.send(type="drained", unsent=self.sent - self.acked)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    return FakeRunner(socket.socket(fileno=parser.parse_args().control_fd)).run()


if __name__ == "__main__":
    raise SystemExit(main())
