# SPDX-License-Identifier: Apache-2.0
"""The current version's side of a trial, with a new version behind a real unix socket that behaves well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from contracts.engine.models import accumulator, affine, classifier
from skerry.bundle.manifest import State, Tolerance
from skerry.observe.comparison import Problem
from skerry.runner import trial as trials
from skerry.runner.comparing import Comparer
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.sequences import stateful
from skerry.serve.http.server import HttpServer
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.runner import BeginTrial
from unit.serve.rig import Rig

X = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
SHADOW = Trial()
CANARY = Trial(mode=TrialMode.CANARY)


async def turn() -> None:
    """One of the loop's."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_soon(passed.set)
    await passed.wait()


class Place:
    """The current version in memory, and where the new one listens."""

    def __init__(self, folder, *, cost=0.0, rig=None):
        self.rig = rig or Rig(cost=cost)
        self.path = str(folder / "t.sock")
        self.trial: Any = None

    def begin(self, trial, *, patience=None):
        served = self.rig.served["m"]
        comparer = Comparer(served.signature.io.outputs, Tolerance())
        command = BeginTrial(path=self.path, version="2", trial=trial)
        self.trial = trials.begin(command, self.rig.desk, served, comparer, self.rig.clock.monotonic)
        if patience is not None:
            self.trial.running._candidate.patience = patience

    @property
    def counts(self):
        return self.trial.running.counts

    async def ask(self, document=X, **headers):
        """One client's request and its answer."""
        self.rig.connection.data_received(posted(document, **headers))
        await self.until(lambda: bool(self.rig.transport.sent))
        [answer] = self.rig.take()
        return answer

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await turn()

    @contextlib.asynccontextmanager
    async def version(self, model, **how) -> AsyncIterator[Rig]:
        """A new version that behaves."""
        other = Rig({"m": model}, **how)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.path)
        server = HttpServer(other.endpoints.handle, now=asyncio.get_running_loop().time)
        await server.start(listening)
        try:
            yield other
        finally:
            await self.trial.stop()
            await server.drain(linger=0.0, limit=1.0)

    @contextlib.asynccontextmanager
    async def impostor(self, answer) -> AsyncIterator[None]:
        """Whatever `answer(reader, writer)` does with a connection."""
        tasks: set[Any] = set()

        async def serve(reader, writer):
            tasks.add(asyncio.current_task())
            try:
                await answer(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_unix_server(serve, self.path)
        try:
            yield
        finally:
            await self.trial.stop()
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def posted(document, path="/v2/models/m/infer", **headers) -> bytes:
    body = json.dumps(document).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# --- shadow


def test_a_shadow_sees_every_request_and_its_answers_are_compared(place):
    async def run():
        async with place.version(affine(bias=0.5)) as other:
            place.begin(SHADOW)
            for _ in range(5):
                assert (await place.ask()).json["model_version"] == "1"
            await place.until(lambda: place.counts.compared == 5)
            assert (place.counts.agreed, place.counts.errors) == (0, 0)
            assert place.counts.shifts.mean == pytest.approx(0.5)
            assert other.served["m"].counters.answered == 5
            assert place.trial.told().asked == 5

    asyncio.run(run())


def test_a_shadow_that_agrees(place):
    async def run():
        async with place.version(affine()):
            place.begin(Trial(percent=50.0))
            for _ in range(10):
                await place.ask()
            await place.until(lambda: place.counts.compared == 5)
            assert place.counts.agreed == 5

    asyncio.run(run())


def test_a_shadow_that_hangs_holds_nobody_up_and_copies_are_left_out_rather_than_kept(place):
    async def hang(reader, _):
        await reader.read()

    async def run():
        async with place.impostor(hang):
            place.begin(SHADOW, patience=0.05)
            for _ in range(200):
                assert (await place.ask()).status == 200
            assert len(place.trial.running._queue) <= 64
            assert place.counts.dropped >= 100
            await place.until(lambda: place.counts.problems[Problem.TIMEOUT] >= 2)

    asyncio.run(run())


def test_large_copies_do_not_pile_up(place):
    async def hang(reader, _):
        await reader.read()

    rows = 100_000
    large = {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [0.1] * (rows * 4)}]}

    async def run():
        async with place.impostor(hang):
            place.begin(SHADOW)
            for _ in range(9):
                await place.ask(large)
            assert place.counts.dropped > 0
            assert sum(call.weight for call, _ in place.trial.running._queue) <= 16 * 1024 * 1024

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"", Problem.GONE),
        (b"nonsense\r\n\r\n", Problem.UNREADABLE),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}", Problem.FAILED),
        (b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n{}", Problem.REFUSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Problem.UNREADABLE),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"outputs":[]}', Problem.UNREADABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{", Problem.GONE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", Problem.UNREADABLE),
    ],
)
@pytest.mark.parametrize("trial", [SHADOW, CANARY], ids=["shadow", "canary"])
def test_what_no_new_version_should_say_is_counted_and_reaches_no_client(place, said, problem, trial):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    async def run():
        async with place.impostor(answer):
            place.begin(trial)
            answer_ = await place.ask()
            assert (answer_.status, answer_.json["model_version"]) == (200, "1")
            await place.until(lambda: place.counts.asked == 1)
            assert dict(place.counts.problems) == {problem: 1}

    asyncio.run(run())


def test_a_new_version_that_is_not_there_is_counted_as_gone(place):
    async def run():
        place.begin(SHADOW)
        await place.ask()
        await place.until(lambda: place.counts.problems[Problem.GONE] == 1)
        await place.trial.stop()
        await place.ask()
        assert place.counts.asked == 1

    asyncio.run(run())


# --- canary


def test_a_canary_answers_its_share_under_its_own_version(place):
    async def run():
        async with place.version(affine(bias=1.0)):
            place.begin(Trial(mode=TrialMode.CANARY, percent=25.0))
            answers = [(await place.ask()).json for _ in range(20)]
            versions = [answer["model_version"] for answer in answers]
            assert (versions.count("1"), versions.count("2")) == (15, 5)
            first = {answer["model_version"]: answer["outputs"][0]["data"][0] for answer in answers}
            assert first["2"] - first["1"] == pytest.approx(1.0)
            assert place.rig.served["m"].counters.answered == 15
            assert (place.counts.asked, place.counts.errors) == (5, 0)

    asyncio.run(run())


def test_binary_answers_of_both_versions_carry_their_own_version(place):
    body = {**X, "parameters": {"binary_data_output": True}}

    async def run():
        async with place.version(affine()):
            place.begin(Trial(mode=TrialMode.CANARY, percent=50.0))
            answers = [await place.ask(body) for _ in range(6)]
            assert [answer.json["model_version"] for answer in answers] == ["1", "2"] * 3
            assert len({answer.tail for answer in answers}) == 1

    asyncio.run(run())


def test_who_names_a_version_gets_that_version(place):
    async def run():
        async with place.version(affine()):
            place.begin(CANARY)
            place.rig.connection.data_received(posted(X, path="/v2/models/m/versions/1/infer"))
            [answer] = place.rig.take()
            assert answer.json["model_version"] == "1"
            assert place.counts.asked == 0

    asyncio.run(run())


def test_a_canary_that_hangs_costs_one_wait_after_the_other_only_three_times(place):
    async def hang(reader, _):
        await reader.read()

    async def run():
        async with place.impostor(hang):
            place.begin(CANARY, patience=0.02)
            for _ in range(50):
                assert (await place.ask()).json["model_version"] == "1"
            assert dict(place.counts.problems) == {Problem.TIMEOUT: 3}
            place.rig.clock.advance(1.1)  # then it gets another chance
            await place.ask()
            assert dict(place.counts.problems) == {Problem.TIMEOUT: 4}

    asyncio.run(run())


def test_a_client_in_a_hurry_is_answered_in_time_by_the_current_version(place):
    async def hang(reader, _):
        await reader.read()

    async def run():
        async with place.impostor(hang):
            place.begin(CANARY)
            began = asyncio.get_running_loop().time()
            answer = await place.ask(Inference_Timeout_Ms=100)
            assert answer.json["model_version"] == "1"
            assert asyncio.get_running_loop().time() - began < 1.0

    asyncio.run(run())


def test_a_request_that_is_wrong_is_refused_as_ever_and_is_no_failure_of_the_new_version(place):
    wrong = {"inputs": [{"name": "y", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}

    async def run():
        async with place.version(affine()):
            place.begin(CANARY)
            assert (await place.ask(wrong)).status == 400
            assert place.counts.asked == 0

    asyncio.run(run())


def test_a_version_with_more_outputs_answers_with_those_clients_know(place):
    async def run():
        async with place.version(classifier()):
            place.begin(CANARY)
            answer = await place.ask()
            assert [output["name"] for output in answer.json["outputs"]] == ["scores"]
            assert answer.json["model_version"] == "2"

    asyncio.run(run())


def test_what_is_under_way_when_a_canary_ends_is_answered(place):
    async def slow(reader, _):
        await reader.read()

    async def run():
        async with place.impostor(slow):
            place.begin(CANARY, patience=0.05)
            asked = asyncio.create_task(place.ask())
            await turn()
            await place.trial.stop()
            assert (await asked).status == 200
            assert (await place.ask()).json["model_version"] == "1"
            assert place.counts.asked == 1

    asyncio.run(run())


def test_large_requests_take_the_same_ways(place):
    rows = 2_000
    data = np.arange(rows * 4, dtype=np.float32)
    large = {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data.tolist()}]}

    async def run():
        async with place.version(affine()):
            place.begin(Trial(mode=TrialMode.CANARY, percent=50.0))
            one, other = await place.ask(large), await place.ask(large)
            assert (one.json["model_version"], other.json["model_version"]) == ("1", "2")
            assert one.json["outputs"] == other.json["outputs"]

    asyncio.run(run())


# --- models that carry state


def remembering(model):
    return stateful(OnnxEngine.load(model), (State(input="before", output="after"),))


def part(sequence=0, *, start=False, end=False):
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1]}]
    parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
    return {"inputs": inputs, "parameters": parameters if sequence else {}}


def total(answer):
    return answer.json["model_version"], answer.json["outputs"][0]["data"][0]


@pytest.fixture
def keeping(tmp_path):
    """A current version that carries state."""
    return Place(tmp_path, rig=Rig({"m": accumulator()}, load=remembering))


def test_a_shadow_is_not_shown_the_middle_of_what_it_did_not_see_begin(keeping):
    async def run():
        async with keeping.version(accumulator(), load=remembering):
            assert total(await keeping.ask(part(7, start=True))) == ("1", 1.0)
            keeping.begin(SHADOW)
            assert total(await keeping.ask(part(7))) == ("1", 2.0)
            assert total(await keeping.ask(part(8, start=True))) == ("1", 1.0)
            await keeping.ask(part())
            await keeping.until(lambda: keeping.counts.compared == 1)
            counts = keeping.trial.told()
            assert (counts.asked, counts.agreed, counts.skipped, counts.problems) == (1, 1, 2, {})

    asyncio.run(run())


def test_a_canary_leaves_every_sequence_with_the_version_that_began_it(keeping):
    async def run():
        async with keeping.version(accumulator(), load=remembering):
            assert total(await keeping.ask(part(1, start=True))) == ("1", 1.0)
            keeping.begin(Trial(mode=TrialMode.CANARY, percent=50.0))
            begun = [total(await keeping.ask(part(n, start=True)))[0] for n in range(2, 8)]
            assert begun == ["1", "2"] * 3
            for was in (2.0, 3.0, 4.0):
                assert total(await keeping.ask(part(1))) == ("1", was)
                found = [total(await keeping.ask(part(n))) for n in range(2, 8)]
                assert found == [("1", was), ("2", was)] * 3
            assert [total(await keeping.ask(part(n, end=True)))[0] for n in range(2, 8)] == begun
            assert not keeping.trial.running._sequences
            assert keeping.counts.errors == 0

    asyncio.run(run())


def test_a_sequence_whose_version_is_gone_is_over_and_another_can_begin(keeping):
    async def run():
        keeping.begin(CANARY)
        async with keeping.version(accumulator(), load=remembering):
            assert total(await keeping.ask(part("a", start=True)))[0] == "2"
        keeping.begin(CANARY)
        keeping.trial.running._sequences["a"] = None
        assert (await keeping.ask(part("a"))).status == 400
        assert total(await keeping.ask(part("a", start=True))) == ("1", 1.0)
        await keeping.trial.stop()

    asyncio.run(run())
