# SPDX-License-Identifier: Apache-2.0
"""Clients of the demo's devices: plain Open Inference Protocol requests over keep-alive connections, one thread a device."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

import numpy as np

from skerry.cli.demo.models import Scans


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    device: str
    request_id: str
    version: str
    correct: bool
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    device: str
    request_id: str
    problem: str


@dataclass(slots=True, kw_only=True)
class Log:
    """What all clients saw; guarded by `lock`."""

    answers: list[Answer] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Answer | Dropped) -> None:
        with self.lock:
            if isinstance(outcome, Answer):
                self.answers.append(outcome)
            else:
                self.dropped.append(outcome)

    def marks(self) -> tuple[int, int]:
        """How many answers and drops so far."""
        with self.lock:
            return len(self.answers), len(self.dropped)

    def answers_since(self, mark: int) -> list[Answer]:
        with self.lock:
            return self.answers[mark:]


class Client:
    """One connection to one device's workload."""

    def __init__(self, device: str, url: str, model: str, scans: Scans) -> None:
        parts = urlsplit(url)
        self._device = device
        self._path = f"/v2/models/{model}/infer"
        self._scans = scans
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=30)

    def ask(self, index: int) -> Answer | Dropped:
        """Send held-out image `index`; any failure to answer is a drop, with its reason. Nothing is retried."""
        request_id = uuid.uuid4().hex
        image = self._scans.held_out[index % len(self._scans.held_out)]
        tensor = {"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [float(pixel) for pixel in image]}
        body = json.dumps({"id": request_id, "inputs": [tensor], "outputs": [{"name": "label"}]})
        begin = time.perf_counter()
        try:
            self._connection.request("POST", self._path, body, {"content-type": "application/json"})
            reply = self._connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Dropped(device=self._device, request_id=request_id, problem=f"{type(error).__name__}: {error}")
        elapsed = (time.perf_counter() - begin) * 1000
        if reply.status != HTTPStatus.OK:
            return Dropped(device=self._device, request_id=request_id, problem=f"{reply.status}: {content[:200]!r}")
        answer = json.loads(content)
        label = answer["outputs"][0]["data"][0]
        truth = self._scans.held_out_labels[index % len(self._scans.held_out)]
        return Answer(
            device=self._device,
            request_id=request_id,
            version=answer["model_version"],
            correct=bool(label == truth),
            milliseconds=elapsed,
        )

    def close(self) -> None:
        self._connection.close()


def ask_all(clients: Iterable[Client], indices: Iterable[int], log: Log) -> None:
    """Every client asks every index once, clients in parallel; returns when all are done."""
    order = list(indices)

    def work(client: Client) -> None:
        for index in order:
            log.add(client.ask(index))

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Traffic:
    """Background load: each client asks about `rate` times a second until the `with` block ends."""

    def __init__(self, clients: Iterable[Client], log: Log, rate: float = 12.0) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client, log, 1 / rate)) for client in clients]

    def _run(self, client: Client, log: Log, pause: float) -> None:
        index = 0
        while not self._stop.is_set():
            log.add(client.ask(index))
            index += 1
            self._stop.wait(pause)

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def accuracy(answers: Iterable[Answer]) -> float:
    marks = [answer.correct for answer in answers]
    return sum(marks) / len(marks) if marks else 0.0


def median_ms(answers: Iterable[Answer]) -> float:
    times = [answer.milliseconds for answer in answers]
    return float(np.median(times)) if times else 0.0
