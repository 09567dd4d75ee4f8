# SPDX-License-Identifier: Apache-2.0
"""Many clients of one server, none of whom may ever see what is another's: each checks every answer against its own question."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from support.raw_http import Address, Answer, RawHttp, request

Rows = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Model:
    """x FP32 [-1, width] -> `output`, which `answer` computes exactly."""

    name: str
    width: int
    output: str
    answer: Callable[[Rows], Rows]


@dataclass(kw_only=True)
class Tally:
    """What became of the questions of all tenants; `wrong` holds the first few stories."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, story: str = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if story and len(self.wrong) < 10:
                self.wrong.append(story)


@dataclass(frozen=True, kw_only=True)
class Question:
    identifier: str
    rows: Rows
    bytes: bytes


class Tenant:
    """One client. Values carry its number, so an answer of another's question is never right by chance."""

    def __init__(self, number: int, address: Address, model: Model, tally: Tally) -> None:
        self.number = number
        self.address = address
        self.model = model
        self.tally = tally
        self.drawn = np.random.default_rng(number)
        self.asked = 0

    def question(self) -> Question:
        self.asked += 1
        drawn, model = self.drawn, self.model
        rows = int(drawn.choice([1, 1, 1, 2, 3, 7, 40, 300 if model.width < 100 else 5]))
        x = drawn.integers(-50, 50, (rows, model.width)).astype(np.float32)
        x[:, 0] = self.number
        x[:, 1] = self.asked
        identifier = f"{self.number}-{self.asked}" if drawn.random() < 0.7 else ""
        headers: dict[str, Any] = {}
        document: dict[str, object] = {"id": identifier} if identifier else {}
        tensor: dict[str, object] = {"name": "x", "shape": list(x.shape), "datatype": "FP32"}
        if drawn.random() < 0.7:
            tail = x.tobytes()
            tensor["parameters"] = {"binary_data_size": len(tail)}
            document["inputs"] = [tensor]
            document["parameters"] = {"binary_data_output": bool(drawn.random() < 0.8)}
            head = json.dumps(document).encode()
            headers["Inference_Header_Content_Length"] = len(head)
            body = head + tail
        else:
            tensor["data"] = x.ravel().tolist()
            document["inputs"] = [tensor]
            body = json.dumps(document).encode()
        if drawn.random() < 0.1:
            body, headers["Content_Encoding"] = gzip.compress(body, 1), "gzip"
        return Question(identifier=identifier, rows=x, bytes=request(f"/v2/models/{model.name}/infer", body, **headers))

    def check(self, question: Question, answer: Answer) -> None:
        if answer.status == 503:
            self.tally.note("refused")
            return
        story = f"tenant {self.number} asked {question.identifier!r} {question.rows[0][:3]}: {answer.status} {answer.body[:200]!r}"
        if answer.status != 200:
            self.tally.note("failed", story)
            return
        [output] = [each for each in answer.json["outputs"] if each["name"] == self.model.output]
        if "data" in output:
            got = np.array(output["data"], np.float32)
        else:
            before = 0
            for each in answer.json["outputs"]:
                if each["name"] == self.model.output:
                    break
                before += each["parameters"]["binary_data_size"]
            size = output["parameters"]["binary_data_size"]
            got = np.frombuffer(answer.tail[before : before + size], np.float32)
        right = self.model.answer(question.rows)
        mine = answer.json.get("id", "") == question.identifier and output["shape"] == list(right.shape)
        if mine and np.array_equal(got, right.ravel()):
            self.tally.note("right")
        else:
            self.tally.note("wrong", story)

    def run(self, questions: int) -> None:
        client = RawHttp(self.address, seconds=60)
        try:
            while self.asked < questions:
                batch = [self.question() for _ in range(int(self.drawn.choice([1, 1, 1, 2, 5])))]
                self._send(client, b"".join(each.bytes for each in batch))
                if self.drawn.random() < 0.02:  # goes away with answers due
                    client.close()
                    client = RawHttp(self.address, seconds=60)
                    continue
                for each in batch:
                    self.check(each, client.next())
        except (OSError, AssertionError, ValueError, KeyError) as error:
            self.tally.note("broken", f"tenant {self.number}: {error!r}")
        finally:
            client.close()

    def _send(self, client: RawHttp, data: bytes) -> None:
        """In one piece or in several."""
        cuts = sorted(self.drawn.integers(0, len(data), int(self.drawn.choice([0, 0, 0, 1, 3]))).tolist())
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            client.send(data[begin:end])


def crowd(addresses: list[Address], models: list[Model], *, tenants: int, questions: int) -> Tally:
    """`tenants` clients, spread over addresses (one per model), each with that many questions."""
    tally = Tally()
    threads = []
    for number in range(1, tenants + 1):
        which = number % len(models)
        tenant = Tenant(number, addresses[which], models[which], tally)
        threads.append(threading.Thread(target=tenant.run, args=(questions,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally
