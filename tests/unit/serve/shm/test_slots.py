# SPDX-License-Identifier: Apache-2.0
"""Our clients over slots of a real server: the same answers as HTTP, counted the same, and every way a slot can end."""

import asyncio
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper

from contracts.engine.models import affine, affine_answer, build
from skerry import errors
from skerry.bundle.manifest import Io, TensorSpec
from skerry.client import Client
from skerry.oip import slot
from skerry.serve.calls import Refused
from skerry.serve.shm.slot import SlotConnection
from skerry.serve.shm.slots import SlotLimits
from support.slot_server import SlotServer

X = np.arange(8, dtype=np.float32).reshape(2, 4)
CHEAP, SLOW = 0.0, 0.01


def mixed():
    """Three inputs of different sizes and kinds -> each of them again."""
    kinds = [("a", TensorProto.UINT8), ("b", TensorProto.DOUBLE), ("c", TensorProto.BOOL), ("d", TensorProto.FLOAT16)]
    return build(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in kinds],
        [(name, kind, ["N", "M"]) for name, kind in kinds],
        [(f"{name}_out", kind, ["N", "M"]) for name, kind in kinds],
    )


def text():
    return build(
        [helper.make_node("Identity", ["t"], ["u"])],
        [("t", TensorProto.STRING, ["N"])],
        [("u", TensorProto.STRING, ["N"])],
    )


def positions():
    """The number of outputs depends on the values."""
    return build(
        [helper.make_node("NonZero", ["x"], ["at"])],
        [("x", TensorProto.FLOAT, ["N"])],
        [("at", TensorProto.INT64, [1, "K"])],
    )


@pytest.fixture(
    params=[(False, CHEAP), (False, SLOW), (True, CHEAP)], ids=["asyncio-inline", "asyncio-worker", "uvloop"]
)
def server(request, tmp_path):
    uvloop, cost = request.param
    models = {"m": affine(), "mixed": mixed(), "text": text(), "positions": positions()}
    with SlotServer(tmp_path / "s", models, uvloop=uvloop, cost=cost) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def slots(server):
    return server.call(lambda: server.slots.count)


def wait_for_slots(server, count):
    for _ in range(1000):
        if slots(server) == count:
            return
    raise AssertionError(slots(server))


def test_the_same_answers_and_one_slot_for_all_of_them(server, client):
    for number in range(50):
        x = X + number
        result = client.infer("m", {"x": x})
        assert np.array_equal(result["scores"], affine_answer(x))
    result = client.infer("m", {"x": X})
    assert (result.model, result.version, result.datatypes) == ("m", "1", {"scores": "FP32"})
    assert slots(server) == 1
    assert server.call(lambda: server.served["m"].counters.answered) == 51
    assert server.call(lambda: server.served["m"].counters.rows) == 102


def test_answers_are_the_callers_own(client):
    first = client.infer("m", {"x": X})["scores"]
    kept = first.copy()
    client.infer("m", {"x": X + 1})
    assert np.array_equal(first, kept)
    first[:] = 0


def test_kinds_and_sizes_side_by_side(server, client):
    inputs = {
        "c": np.array([[True, False, True]]),
        "a": np.array([[1, 2, 255]], np.uint8),
        "b": np.array([[0.5, np.nan, np.inf]]),
        "d": np.array([[1.5, -2, 0]], np.float16),
    }
    for _ in range(2):
        result = client.infer("mixed", inputs)
        for name, value in inputs.items():
            assert np.array_equal(result[f"{name}_out"], value, equal_nan=value.dtype.kind == "f")
    assert slots(server) == 1


def test_every_shape_has_its_slot(server, client):
    for rows in (X, X[:1], X, X[:1]):
        assert np.array_equal(client.infer("m", {"x": rows})["scores"], affine_answer(rows))
    assert slots(server) == 2


def test_arrays_that_lie_otherwise_in_memory(client):
    turned = np.arange(8, dtype=np.float32).reshape(4, 2).T
    assert np.array_equal(client.infer("m", {"x": turned})["scores"], affine_answer(turned))


def test_no_rows_at_all(client):
    assert client.infer("m", {"x": X[:0]})["scores"].shape == (0, 3)


def test_one_output_of_several(server, client):
    inputs = {name: np.ones((1, 1), kind) for name, kind in (("a", "u1"), ("b", "f8"), ("c", "?"), ("d", "f2"))}
    assert list(client.infer("mixed", inputs, outputs=["d_out", "b_out"])) == ["b_out", "d_out"]
    assert slots(server) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.infer("m", {"x": X}, binary=False)["scores"].shape,
        lambda client: client.infer("m", {"x": X}, request_id="q")["scores"].shape,
        lambda client: client.infer("m", {"x": X}, parameters={"priority": 1})["scores"].shape,
        lambda client: client.infer("m", {"x": X.astype(">f4")})["scores"].shape,
        lambda client: (*client.infer("text", {"t": np.array(["a", "b"])})["u"].shape, 3),
    ],
)
def test_what_a_slot_cannot_carry_goes_over_http(server, client, call):
    assert call(client) == (2, 3)
    assert slots(server) == 0


def test_everything_else_goes_over_http(client):
    assert client.live()
    assert client.ready("m")
    assert client.metadata("m")["name"] == "m"
    assert "mixed" in client.models()


@pytest.mark.parametrize(
    ("model", "inputs", "status"),
    [
        ("nothing", {"x": X}, 404),
        ("m", {"x": X[:, :3]}, 400),
        ("m", {"y": X}, 400),
        ("m", {"x": X.astype(np.float64)}, 400),
    ],
)
def test_refusals_are_those_of_http(server, client, model, inputs, status):
    with pytest.raises(errors.CallRefused) as caught:
        client.infer(model, inputs)
    assert caught.value.fields["status"] == status
    assert slots(server) == 0


def test_outputs_that_change_their_shape_are_refused_and_the_slot_stays(server, client):
    x = np.zeros(3, np.float32)  # as the request that was run to learn the shapes
    assert client.infer("positions", {"x": x})["at"].shape == (1, 0)
    for _ in range(2):
        with pytest.raises(errors.CallRefused, match="shape"):
            client.infer("positions", {"x": np.ones(3, np.float32)})
    assert client.infer("positions", {"x": x})["at"].shape == (1, 0)
    assert server.call(server.served["positions"].counters.failed.total) == 2


def test_a_model_that_is_not_ready(server, client):
    client.infer("m", {"x": X})
    server.served["m"].ready = False
    with pytest.raises(errors.CallRefused) as caught:
        client.infer("m", {"x": X})
    assert (caught.value.fields["status"], caught.value.fields["server_code"]) == (503, "SKY-6003")
    server.served["m"].ready = True
    client.infer("m", {"x": X})


def test_a_closed_client_gives_its_slots_back(server):
    with Client(server.url) as client:
        client.infer("m", {"x": X})
        assert slots(server) == 1
    wait_for_slots(server, 0)
    assert server.call(lambda: server.slots.bytes) == 0
    with pytest.raises(errors.CallInvalid):
        client.infer("m", {"x": X})


def test_an_idle_slot_is_taken_back_and_nobody_notices(server, client):
    client.infer("m", {"x": X})
    server.call(lambda: [connection.expire() for connection in server.server._connections])
    wait_for_slots(server, 0)
    assert np.array_equal(client.infer("m", {"x": X})["scores"], affine_answer(X))


def test_threads_have_slots_of_their_own(server, client):
    wrong: list[np.ndarray] = []

    def work(value):
        x = np.full((2, 4), value, np.float32)
        answers = [client.infer("m", {"x": x})["scores"] for _ in range(50)]
        wrong.extend(answer for answer in answers if not np.array_equal(answer, affine_answer(x)))

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= slots(server) <= 4


def test_a_draining_server_gives_each_slot_its_last_answer(server, client):
    client.infer("m", {"x": X})
    server.call(lambda: [connection.drain() for connection in server.server._connections])
    assert np.array_equal(client.infer("m", {"x": X})["scores"], affine_answer(X))
    wait_for_slots(server, 0)
    assert np.array_equal(client.infer("m", {"x": X})["scores"], affine_answer(X))  # a slot of whoever serves now


def test_a_refusal_of_a_draining_server_is_its_last_word_too(server, client):
    x = np.zeros(3, np.float32)
    client.infer("positions", {"x": x})
    server.call(lambda: [connection.drain() for connection in server.server._connections])
    with pytest.raises(errors.CallRefused, match="shape"):
        client.infer("positions", {"x": x + 1})
    wait_for_slots(server, 0)


def test_a_server_that_is_gone(server, client):
    client.infer("m", {"x": X})
    server.drain()
    with pytest.raises((errors.ServerUnreachable, errors.ConnectionBroken)):
        client.infer("m", {"x": X})


def test_values_outside_the_range_a_bundle_declares(tmp_path):
    io = Io(
        inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 4), range=(1.0, 9.0)),),
        outputs=(TensorSpec(name="scores", dtype="FP32", shape=(-1, 3)),),
    )
    with SlotServer(tmp_path / "s", {"m": affine()}, ios={"m": io}) as server, Client(server.url) as client:
        assert client.infer("m", {"x": np.full((1, 4), 2, np.float32)})["scores"].shape == (1, 3)
        for value in (0.5, np.nan):
            with pytest.raises(errors.CallRefused, match="from 1 to 9"):
                client.infer("m", {"x": np.full((1, 4), value, np.float32)})
        assert slots(server) == 1
        assert server.call(server.served["m"].counters.refused.total) == 2


def test_a_server_without_a_free_slot_answers_over_http(tmp_path):
    limits = SlotLimits(slots=1)
    server = SlotServer(tmp_path / "s", {"m": affine()}, limits=limits)
    with server, Client(server.url) as first, Client(server.url) as second:
        for client in (first, second, second):
            assert np.array_equal(client.infer("m", {"x": X})["scores"], affine_answer(X))
        assert slots(server) == 1
        assert server.call(lambda: server.served["m"].counters.answered) == 3


@pytest.mark.parametrize("limits", [SlotLimits(bytes=64), SlotLimits(all_bytes=64), SlotLimits(slots=0)])
def test_memory_is_bounded(tmp_path, limits):
    with SlotServer(tmp_path / "s", {"m": affine()}, limits=limits) as server, Client(server.url) as client:
        assert np.array_equal(client.infer("m", {"x": X})["scores"], affine_answer(X))
        assert (slots(server), server.call(lambda: server.slots.bytes)) == (0, 0)


class Held:
    """An engine that waits for `go` before it runs."""

    def __init__(self, engine):
        self._engine = engine
        self.go = threading.Event()
        self.io = engine.io

    def run(self, inputs):
        self.go.wait(10)
        return self._engine.run(inputs)


def test_a_request_that_takes_too_long(tmp_path):
    with SlotServer(tmp_path / "s", {"m": affine()}, cost=SLOW) as server, Client(server.url) as client:
        client.infer("m", {"x": X}, timeout=0.5)
        held: Any = Held(server.served["m"].engine)
        server.served["m"].engine = held
        with pytest.raises(errors.CallTimedOut):
            client.infer("m", {"x": X}, timeout=0.5)
        assert slots(server) == 1  # its memory is still in use
        held.go.set()
        wait_for_slots(server, 0)
        assert np.array_equal(client.infer("m", {"x": X}, timeout=0.5)["scores"], affine_answer(X))


def test_a_call_read_again_is_what_was_answered_not_what_the_client_wrote_since(tmp_path):
    """A trial reads calls later, when the memory is the client's again."""
    seen = []

    class Witness:
        def answered(self, served, call, answer):
            seen.append((call, answer.outputs))

    with SlotServer(tmp_path / "s", {"m": affine()}) as server, Client(server.url) as client:
        client.infer("m", {"x": X})
        server.desk.witness = Witness()
        client.infer("m", {"x": X})
        client.infer("m", {"x": X + 1})
        for number, (call, outputs) in enumerate(server.call(lambda: list(seen))):
            assert np.array_equal(call.decode(server.served["m"].signature).inputs["x"], X + number)
            assert np.array_equal(outputs["scores"], affine_answer(X + number))
            assert call.weight >= X.nbytes


def test_a_defect_ends_one_slot_and_nothing_else(tmp_path, caplog):
    class Broken:
        def __init__(self, engine):
            self.io = engine.io
            self.runs = 0

        def run(self, inputs):
            self.runs += 1
            if self.runs > 1:  # the first one is that of zeros
                raise LookupError("a defect")
            return {"scores": np.zeros((2, 3), np.float32)}

    with SlotServer(tmp_path / "s", {"m": affine(), "n": affine()}) as server, Client(server.url) as client:
        broken: Any = Broken(server.served["m"].engine)
        server.served["m"].engine = broken
        with pytest.raises(errors.ConnectionBroken):
            client.infer("m", {"x": X})
        wait_for_slots(server, 0)
        assert np.array_equal(client.infer("n", {"x": X})["scores"], affine_answer(X))
    assert "a defect" in caplog.text


def test_a_request_whose_client_has_gone_is_told_and_its_memory_is_kept_until_it_is_over():
    asked, ended = [], []
    office = SimpleNamespace(
        host=SimpleNamespace(now=lambda: 1.0, opened=lambda _: True, closed=lambda _: None),
        desk=SimpleNamespace(unattended=lambda _: False, ask=lambda _, call: asked.append(call)),
        served=None,
        idle_seconds=1.0,
        ended=lambda: ended.append(1),
    )
    connection = SlotConnection(cast("Any", office), cast("Any", SimpleNamespace(plain=True)), socket.socket())
    connection.connection_made(asyncio.Transport())
    connection.data_received(slot.RUN)
    [call] = asked
    assert not call.gone
    connection.connection_lost(None)
    assert call.gone
    assert not ended
    call.finish(Refused(error=errors.ClientGone()))
    assert ended == [1]
