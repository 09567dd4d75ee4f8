# SPDX-License-Identifier: Apache-2.0
"""Every corner case in which servers of the protocol were seen to differ, put to real runners over TCP and over a unix socket.

Our rule: each client error is a 4xx with a JSON body that has `error` and our `code`, and the connection goes on, or is
closed and said to be.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine_answer, build, classifier, identities
from skerry.bundle.manifest import BundleConfig
from support.raw_http import Address, Answer, RawHttp, request

pytestmark = pytest.mark.slow

X = np.array([[1, 2, 3, 4]], np.float32)
RAW = X.tobytes()
SECRET = "what-another-tenant-sent"
TYPES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[-2, 1.5]], np.float16),
    "FP32": np.array([[0.5, -1.25]], np.float32),
    "FP64": np.array([[1e300, -0.1]], np.float64),
    "BYTES": np.array([[b"ab", b""]], object),
}
Box = dict[str, Address]


def ranged():
    """x[N] and n[N] come back; the bundle says that x is in [-1, 1] and n in [0, 9]."""
    return build(
        [helper.make_node("Identity", [name], [f"{name}-out"]) for name in ("x", "n")],
        [("x", TensorProto.FLOAT, ["N"]), ("n", TensorProto.INT64, ["N"])],
        [("x-out", TensorProto.FLOAT, ["N"]), ("n-out", TensorProto.INT64, ["N"])],
    )


def declare_ranges(bundle, ranges):
    path = bundle / "skerry.json"
    config = msgspec.json.decode(path.read_bytes(), type=BundleConfig)
    inputs = tuple(msgspec.structs.replace(spec, range=ranges[spec.name]) for spec in config.io.inputs)
    io = msgspec.structs.replace(config.io, inputs=inputs)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(config, io=io)))
    return bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    kinds = {name: int(helper.np_dtype_to_tensor_dtype(value.dtype)) for name, value in TYPES.items()}
    small: dict[str, np.ndarray] = {"x": np.zeros(2, np.float32), "n": np.zeros(2, np.int64)}
    return {
        "digits": write_bundle(folder / "digits", classifier(), {"x": np.tile(X, (3, 1))}),
        "types": write_bundle(folder / "types", identities(kinds), TYPES, name="types"),
        "ranged": declare_ranges(
            write_bundle(folder / "ranged", ranged(), small, name="ranged"), {"x": (-1.0, 1.0), "n": (0.0, 9.0)}
        ),
    }


def listen_unix(path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    listener.set_inheritable(True)
    return listener


@pytest.fixture(scope="module", params=["tcp", "unix"])
def box(request, bundles, tmp_path_factory):
    """Model name -> where it is served."""
    folder = tmp_path_factory.mktemp("sockets")
    with ExitStack() as stack:
        runners, addresses = [], {}
        for name, bundle in bundles.items():
            listener = stack.enter_context(listen() if request.param == "tcp" else listen_unix(folder / name))
            runners.append(stack.enter_context(RunnerProcess(bundle, listener)))
            addresses[name] = listener.getsockname()
        for runner in runners:
            runner.serve()
        yield addresses


def tensor(data: Any = None, *, name="x", shape=(1, 4), datatype="FP32", **more: Any) -> dict[str, Any]:
    document = {"name": name, "shape": list(shape), "datatype": datatype}
    return {**document, **({} if data is None else {"data": data}), **more}


def sized(size: object, **more: Any) -> dict[str, Any]:
    return tensor(parameters={"binary_data_size": size}, **more)


FLAT = tensor([1, 2, 3, 4])
GOOD = {"inputs": [FLAT]}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A POST of `body` (a document, or bytes as they are) with `tail` behind it."""

    body: Any = field(default_factory=lambda: GOOD)
    tail: bytes | None = None
    header: object = None  # Inference-Header-Content-Length, when it is not the length of the JSON
    model: str = "digits"
    path: str = ""
    headers: dict[str, object] = field(default_factory=dict)
    method: str = "POST"

    @property
    def bytes(self) -> bytes:
        head = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = dict(self.headers)
        if self.header is not None or self.tail is not None:
            headers["Inference_Header_Content_Length"] = len(head) if self.header is None else self.header
        path = self.path or f"/v2/models/{self.model}/infer"
        return request(path, head + (self.tail or b""), method=self.method, **headers)


def refused_type(datatype: str, data: object) -> Case:
    """`data` for the input of that type, everything else as it should be."""
    inputs = [
        tensor(data, name=name, shape=[1, 2], datatype=name) if name == datatype else good_type(name) for name in TYPES
    ]
    tail = b"".join(packed(name) for name in TYPES if name == "FP16" and name != datatype)
    return Case(body={"inputs": inputs, "parameters": {"binary_data_output": True}}, tail=tail, model="types")


def packed(name: str) -> bytes:
    value = TYPES[name]
    if value.dtype == object:
        return b"".join(struct.pack("<I", len(each)) + each for each in value.flat)
    return value.tobytes()


def good_type(name: str, *, binary: bool = False) -> dict[str, Any]:
    value = TYPES[name]
    if binary or name == "FP16":
        return sized(len(packed(name)), name=name, shape=value.shape, datatype=name)
    data = [each.decode() for each in value.flat] if value.dtype == object else value.ravel().tolist()
    return tensor(data, name=name, shape=value.shape, datatype=name)


def refused_bytes(data: bytes) -> Case:
    inputs = [
        sized(len(data), name=name, shape=[1, 2], datatype=name) if name == "BYTES" else good_type(name, binary=True)
        for name in TYPES
    ]
    tail = b"".join(data if name == "BYTES" else packed(name) for name in TYPES)
    return Case(body={"inputs": inputs, "parameters": {"binary_data_output": True}}, tail=tail, model="types")


def refused_value(datatype: str, value: bytes) -> Case:
    inputs = [good_type(name, binary=True) for name in TYPES]
    tail = b"".join(value if name == datatype else packed(name) for name in TYPES)
    return Case(body={"inputs": inputs, "parameters": {"binary_data_output": True}}, tail=tail, model="types")


def out_of_range(x: list[float], n: list[int]) -> Case:
    """In binary form: JSON could not say NaN."""
    a, b = np.array(x, np.float32).tobytes(), np.array(n, np.int64).tobytes()
    inputs = [sized(len(a), shape=[len(x)]), sized(len(b), name="n", shape=[len(n)], datatype="INT64")]
    return Case(body={"inputs": inputs}, tail=a + b, model="ranged")


INVALID, UNKNOWN, METHOD, PATH = "SKY-6001", "SKY-6002", "SKY-6007", "SKY-6008"
LARGE, ENCODING, LATE = "SKY-6004", "SKY-6006", "SKY-6010"
GIB2 = 2 * 1024**3

Row = tuple[Case, int, str, str]
REFUSED: dict[str, Row] = {
    # --- who is asked
    "unknown model": (Case(model="digits", path="/v2/models/nobody/infer"), 404, UNKNOWN, "nobody"),
    "unknown version": (Case(path="/v2/models/digits/versions/9/infer"), 404, UNKNOWN, "version 9"),
    "model with a NUL in its name": (Case(path="/v2/models/a%00b/infer"), 404, UNKNOWN, "unknown model"),
    "ready of an unknown model": (Case(path="/v2/models/nobody/ready", method="GET", body=b""), 404, UNKNOWN, "nobody"),
    "config of an unknown model": (
        Case(path="/v2/models/nobody/config", method="GET", body=b""),
        404,
        UNKNOWN,
        "nobody",
    ),
    "stats of an unknown version": (
        Case(path="/v2/models/digits/versions/9/stats", method="GET", body=b""),
        404,
        UNKNOWN,
        "version 9",
    ),
    "infer with GET": (Case(method="GET", body=b""), 405, METHOD, "GET"),
    "metadata with POST": (Case(path="/v2/models/digits"), 405, METHOD, "POST"),
    "trailing slash": (Case(path="/v2/models/digits/infer/"), 404, PATH, "nothing at"),
    "name not UTF-8": (Case(path="/v2/models/%ff/infer"), 400, INVALID, "UTF-8"),
    # --- the document
    "malformed JSON": (Case(body=b'{"inputs": ['), 400, INVALID, "not valid"),
    "empty body": (Case(body=b""), 400, INVALID, "not valid"),
    "no object": (Case(body=[]), 400, INVALID, "not valid"),
    "no inputs": (Case(body={}), 400, INVALID, "inputs"),
    "id not a string": (Case(body={"id": 5, **GOOD}), 400, INVALID, "id"),
    "nested without end": (Case(body=b'{"x":' + b"[" * 100_000), 400, INVALID, "not valid"),
    "not UTF-8": (Case(body=b'{"id": "\xff", "inputs": []}'), 400, INVALID, "not valid"),
    "parameter null": (Case(body={"parameters": {"a": None}, **GOOD}), 400, INVALID, "parameters"),
    "parameter a list": (Case(body={"parameters": {"a": [1]}, **GOOD}), 400, INVALID, "parameters"),
    "timeout not a number": (Case(body={"parameters": {"timeout": "1"}, **GOOD}), 400, INVALID, "timeout"),
    "timeout negative": (Case(body={"parameters": {"timeout": -1}, **GOOD}), 400, INVALID, "timeout"),
    "timeout beyond any clock": (Case(body={"parameters": {"timeout": 10**400}, **GOOD}), 400, INVALID, "timeout"),
    "too much JSON": (Case(body=b" " * (17 << 20) + json.dumps(GOOD).encode()), 400, INVALID, "binary"),
    "NaN in the text": (
        Case(body=b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,1,1,1]}]}'),
        400,
        INVALID,
        "not valid",
    ),
    # --- inputs and outputs
    "unknown input": (Case(body={"inputs": [FLAT, tensor([1], name="z")]}), 400, INVALID, "no input z"),
    "input missing": (Case(body={"inputs": []}), 400, INVALID, "input x is missing"),
    "input twice": (Case(body={"inputs": [FLAT, FLAT]}), 400, INVALID, "twice"),
    "unknown output": (Case(body={**GOOD, "outputs": [{"name": "z"}]}), 400, INVALID, "no output z"),
    "output twice": (Case(body={**GOOD, "outputs": [{"name": "label"}] * 2}), 400, INVALID, "twice"),
    "wrong rank": (Case(body={"inputs": [tensor([1, 2, 3, 4], shape=[4])]}), 400, INVALID, "the model takes"),
    "wrong shape": (Case(body={"inputs": [tensor([1, 2], shape=[1, 2])]}), 400, INVALID, "the model takes"),
    "negative dimension": (Case(body={"inputs": [tensor([1, 2, 3, 4], shape=[-1, 4])]}), 400, INVALID, "shape"),
    "dimensions that overflow": (Case(body={"inputs": [tensor([1], shape=[2**62, 4])]}), 400, INVALID, "shape"),
    "a dimension no machine has": (Case(body={"inputs": [tensor([1], shape=[10**30, 4])]}), 400, INVALID, "shape"),
    "dimension a fraction": (Case(body={"inputs": [tensor([1], shape=[1.5, 4])]}), 400, INVALID, "shape"),
    "too few values": (Case(body={"inputs": [tensor([1, 2, 3])]}), 400, INVALID, "do not fit shape"),
    "too many values": (Case(body={"inputs": [tensor([1, 2, 3, 4, 5])]}), 400, INVALID, "do not fit shape"),
    "nested otherwise": (Case(body={"inputs": [tensor([[1, 2], [3, 4]])]}), 400, INVALID, "nested as"),
    "ragged": (Case(body={"inputs": [tensor([[1, 2, 3], [4]])]}), 400, INVALID, "does not fit"),
    "wrong datatype": (Case(body={"inputs": [tensor([1] * 4, datatype="INT32")]}), 400, INVALID, "takes FP32"),
    "unknown datatype": (Case(body={"inputs": [tensor([1] * 4, datatype="FLOAT")]}), 400, INVALID, "no datatype"),
    "neither data nor bytes": (Case(body={"inputs": [tensor()]}), 400, INVALID, "neither"),
    "data no array": (Case(body={"inputs": [tensor(5)]}), 400, INVALID, "must be an array"),
    "data an object": (Case(body={"inputs": [tensor({})]}), 400, INVALID, "must be an array"),
    # --- values
    "too large for FP32": (refused_type("FP32", [1e39, 0]), 400, INVALID, "input FP32"),
    "too large for INT8": (refused_type("INT8", [300, 0]), 400, INVALID, "input INT8"),
    "too large for UINT64": (refused_type("UINT64", [2**64, 0]), 400, INVALID, "input UINT64"),
    "negative for UINT8": (refused_type("UINT8", [-1, 0]), 400, INVALID, "input UINT8"),
    "fraction for INT64": (refused_type("INT64", [2.5, 0]), 400, INVALID, "input INT64"),
    "true for INT64": (refused_type("INT64", [True, 0]), 400, INVALID, "input INT64"),
    "numbers for BOOL": (refused_type("BOOL", [0, 1]), 400, INVALID, "input BOOL"),
    "string among numbers": (refused_type("FP64", [1, "2"]), 400, INVALID, "input FP64"),
    "null among numbers": (refused_type("FP32", [1, None]), 400, INVALID, "input FP32"),
    "numbers for BYTES": (refused_type("BYTES", [0, 1]), 400, INVALID, "input BYTES"),
    "half a character for BYTES": (refused_type("BYTES", ["\ud800", ""]), 400, INVALID, "not valid"),
    "FP16 as JSON": (refused_type("FP16", [1.0, 2.0]), 400, INVALID, "binary"),
    "BOOL byte 2": (refused_value("BOOL", b"\x01\x02"), 400, INVALID, "input BOOL"),
    "bytes the model cannot take": (
        refused_bytes(struct.pack("<I", 1) + b"\xff" + bytes(4)),
        400,
        INVALID,
        "UTF-8",
    ),
    "FP16 asked for as JSON": (
        Case(
            body={"inputs": [good_type(name, binary=True) for name in TYPES], "outputs": [{"name": "FP16-out"}]},
            tail=b"".join(map(packed, TYPES)),
            model="types",
        ),
        400,
        INVALID,
        "binary",
    ),
    "NaN where there is a range": (out_of_range([0.0, np.nan], [0, 1]), 400, INVALID, "input x"),
    "infinity where there is a range": (out_of_range([np.inf, 0.0], [0, 1]), 400, INVALID, "input x"),
    "above its range": (out_of_range([0.0, 1.001], [0, 1]), 400, INVALID, "input x"),
    "below its range": (out_of_range([0.0, 0.0], [-1, 1]), 400, INVALID, "input n"),
    # --- binary data
    "header missing": (Case(body={"inputs": [sized(16)]}), 400, INVALID, "needs the header"),
    "header too big": (Case(body={"inputs": [sized(16)]}, tail=RAW, header=10_000), 400, INVALID, "the body has"),
    "header negative": (Case(body={"inputs": [sized(16)]}, tail=RAW, header=-5), 400, INVALID, "is not a number"),
    "header no number": (Case(body={"inputs": [sized(16)]}, tail=RAW, header="many"), 400, INVALID, "is not a number"),
    "header of 2 GiB": (Case(body={"inputs": [sized(16)]}, tail=RAW, header=GIB2), 400, INVALID, "the body has"),
    "header inside the JSON": (Case(body={"inputs": [sized(16)]}, tail=RAW, header=20), 400, INVALID, "not valid"),
    "bytes short": (Case(body={"inputs": [sized(16)]}, tail=RAW[:-1]), 400, INVALID, "ends before"),
    "bytes left over": (Case(body={"inputs": [sized(16)]}, tail=RAW + b"!"), 400, INVALID, "1 bytes follow"),
    "not the shape's bytes": (Case(body={"inputs": [sized(12)]}, tail=RAW[:12]), 400, INVALID, "needs 16"),
    "data and bytes": (
        Case(body={"inputs": [{**FLAT, "parameters": {"binary_data_size": 16}}]}, tail=RAW),
        400,
        INVALID,
        "both",
    ),
    "size negative": (Case(body={"inputs": [sized(-1)]}, tail=RAW), 400, INVALID, "number of bytes"),
    "size of 2 GiB": (Case(body={"inputs": [sized(GIB2)]}, tail=RAW), 400, INVALID, "ends before"),
    "size beyond any number": (Case(body={"inputs": [sized(10**30)]}, tail=RAW), 400, INVALID, ""),
    "shape and size of 2 GiB": (
        Case(body={"inputs": [sized(GIB2, shape=[GIB2 // 16, 4])]}, tail=RAW),
        400,
        INVALID,
        "ends before",
    ),
    "BYTES longer than the data": (refused_bytes(struct.pack("<I", 99) + b"ab" + bytes(4)), 400, INVALID, "longer"),
    "BYTES of 4 GiB": (refused_bytes(b"\xff" * 4 + b"ab" + bytes(4)), 400, INVALID, "longer"),
    "BYTES that end inside a length": (refused_bytes(bytes(9)), 400, INVALID, "inside a length"),
    "BYTES elements too few": (refused_bytes(struct.pack("<I", 4) + b"abcd"), 400, INVALID, "elements"),
    "BYTES elements too many": (refused_bytes(bytes(12)), 400, INVALID, "elements"),
    "raw request for many inputs": (Case(body=RAW, header=0, model="types"), 400, INVALID, "exactly one input"),
    "raw request of half a value": (Case(body=RAW[:-1], header=0), 400, INVALID, "needs"),
    # --- encodings, time
    "time already over": (Case(body={"parameters": {"timeout": 1}, **GOOD}), 504, LATE, "time was over"),
    "time in the header no number": (Case(headers={"Inference_Timeout_Ms": "soon"}), 400, INVALID, "not a number"),
    "time in the header negative": (Case(headers={"Inference_Timeout_Ms": "-1"}), 400, INVALID, "not a number"),
    "compressed in a way nobody knows": (Case(headers={"Content_Encoding": "br"}), 415, ENCODING, "br"),
    "not what it says to be": (Case(headers={"Content_Encoding": "gzip"}), 400, INVALID, "gzip"),
    "cut short": (
        Case(body=gzip.compress(json.dumps(GOOD).encode())[:-4], headers={"Content_Encoding": "gzip"}),
        400,
        INVALID,
        "cut short",
    ),
    "a bomb": (
        Case(body=zlib.compress(bytes(80 << 20)), headers={"Content_Encoding": "deflate"}),
        413,
        LARGE,
        "exceeds",
    ),
}


def said(answer: Answer, status: int, code: str, text: str) -> None:
    """The answer is the protocol's error document and says nothing about anyone else."""
    assert (answer.status, answer.json.get("code")) == (status, code), answer.body
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"error", "code"}
    assert text in answer.json["error"]
    assert SECRET.encode() not in answer.body


def good(client: RawHttp, model: str = "digits") -> None:
    """An ordinary question on this connection is answered, rightly."""
    if model != "digits":
        client.send(request("/v2/health/ready", method="GET"))
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.json) == (200, {"ready": True})
        return
    answer = client.ask(Case().bytes)
    assert answer.status == 200
    assert answer.json["outputs"][0]["data"] == affine_answer(X)[0].tolist()


def plant(address: Address) -> None:
    """Leave something in the server's memory that no other client may ever see."""
    body = b'{"id": "%s", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}'
    with RawHttp(address) as tenant:
        tenant.ask(request("/v2/models/digits/infer", (body % SECRET.encode()) + SECRET.encode() * 100))
        tenant.ask(request(f"/v2/models/{SECRET}/infer", SECRET.encode() * 1000))


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_with_our_code_and_the_connection_stays_sane(box: Box, case):
    wrong, status, code, text = REFUSED[case]
    plant(box[wrong.model])
    with RawHttp(box[wrong.model]) as client:
        answer = client.ask(wrong.bytes)
        said(answer, status, code, text)
        if answer.closes:
            assert client.ended()
        else:
            good(client, wrong.model)


@pytest.mark.parametrize("case", [name for name, row in REFUSED.items() if len(row[0].bytes) < 1 << 20])
def test_a_wrong_request_in_a_pipeline_takes_only_its_own_turn(box: Box, case):
    wrong, status, code, text = REFUSED[case]
    ready = request("/v2/health/ready", method="GET")
    with RawHttp(box[wrong.model]) as client:
        client.send(ready + wrong.bytes + ready)
        first, second, third = client.answer(), client.answer(), client.answer()
        assert first is not None
        assert second is not None
        assert first.status == 200
        said(second, status, code, text)
        assert (third is None) if second.closes else (third is not None and third.status == 200)


# --- what is answered -----------------------------------------------------------------------------------------------------

BOTH = {"scores": affine_answer(X)[0].tolist(), "label": [int(affine_answer(X).argmax())]}
EMPTY: dict[str, list[float]] = {"scores": [], "label": []}
ANSWERED: dict[str, tuple[Case, dict[str, list[float]]]] = {
    "flat": (Case(), BOTH),
    "nested": (Case(body={"inputs": [tensor([[1, 2, 3, 4]])]}), BOTH),
    "version in the path": (Case(path="/v2/models/digits/versions/1.0.0/infer"), BOTH),
    "percent-encoded": (Case(path="/v2/models/dig%69ts/infer"), BOTH),
    "query": (Case(path="/v2/models/digits/infer?model=other"), BOTH),
    "JSON called something else": (Case(headers={"Content_Type": "text/plain"}), BOTH),
    "keys nobody knows": (Case(body={"model_name": "other", "future": [1], **GOOD}), BOTH),
    "parameters of other servers": (Case(body={"parameters": {"content_type": "np", "f": 1.5}, **GOOD}), BOTH),
    "outputs: []": (Case(body={"outputs": [], **GOOD}), BOTH),
    "one output": (Case(body={"outputs": [{"name": "label"}], **GOOD}), {"label": BOTH["label"]}),
    "zero rows": (Case(body={"inputs": [tensor([], shape=[0, 4])]}), EMPTY),
    "binary in": (Case(body={"inputs": [sized(16)]}, tail=RAW), BOTH),
    "blanks behind the JSON": (Case(body=json.dumps({"inputs": [sized(16)]}).encode() + b"   ", tail=RAW), BOTH),
    "time enough": (Case(body={"parameters": {"timeout": 60_000_000}, **GOOD}), BOTH),
    "gzip": (Case(body=gzip.compress(json.dumps(GOOD).encode()), headers={"Content_Encoding": "gzip"}), BOTH),
    "deflate": (Case(body=zlib.compress(json.dumps(GOOD).encode()), headers={"Content_Encoding": "deflate"}), BOTH),
    "compressed binary": (
        Case(
            body=gzip.compress(json.dumps({"inputs": [sized(16)]}).encode() + RAW),
            header=len(json.dumps({"inputs": [sized(16)]})),
            headers={"Content_Encoding": "gzip"},
        ),
        BOTH,
    ),
    "an answer too small to compress": (Case(headers={"Accept_Encoding": "gzip"}), BOTH),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_a_right_request_is_answered(box: Box, case):
    asked, outputs = ANSWERED[case]
    with RawHttp(box["digits"]) as client:
        answer = client.ask(asked.bytes)
        assert answer.status == 200, answer.body
        assert "content-encoding" not in answer.headers
        assert {output["name"]: output["data"] for output in answer.json["outputs"]} == outputs
        good(client)


@pytest.mark.parametrize("identifier", ["", "abc", "grüße", SECRET])
def test_an_id_comes_back_when_there_was_one(box: Box, identifier):
    with RawHttp(box["digits"]) as client:
        for body, tail in ((GOOD, None), ({"inputs": [sized(16)], "parameters": {"binary_data_output": True}}, RAW)):
            assert client.ask(Case(body={"id": identifier, **body}, tail=tail).bytes).json["id"] == identifier
            assert "id" not in client.ask(Case(body=body, tail=tail).bytes).json


def test_every_datatype_in_binary_and_back(box: Box):
    inputs = [good_type(name, binary=True) for name in TYPES]
    tail = b"".join(map(packed, TYPES))
    body = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    with RawHttp(box["types"]) as client:
        answer = client.ask(Case(body=body, tail=tail, model="types").bytes)
        assert answer.status == 200, answer.body
        assert [output["name"] for output in answer.json["outputs"]] == [f"{name}-out" for name in TYPES]
        assert answer.tail == tail


def test_json_and_binary_mixed_both_ways(box: Box):
    binary = {"FP16", "INT8", "BYTES"}
    inputs = [good_type(name, binary=name in binary) for name in TYPES]
    outputs = [{"name": f"{name}-out", "parameters": {"binary_data": name in binary}} for name in TYPES]
    tail = b"".join(packed(name) for name in TYPES if name in binary)
    with RawHttp(box["types"]) as client:
        answer = client.ask(Case(body={"inputs": inputs, "outputs": outputs}, tail=tail, model="types").bytes)
        assert answer.status == 200, answer.body
        assert answer.tail == tail
        plain = {output["datatype"]: output.get("data") for output in answer.json["outputs"]}
        assert plain == {name: None if name in binary else good_type(name)["data"] for name in TYPES}


def test_a_raw_request_is_the_bytes_of_the_only_input(box: Box):
    with RawHttp(box["digits"]) as client:
        answer = client.ask(Case(body=np.concatenate([X, X + 1]).tobytes(), header=0).bytes)
        assert answer.json["outputs"][0]["shape"] == [2, 3]
        assert answer.tail[:24] == affine_answer(np.concatenate([X, X + 1])).tobytes()


def test_values_within_their_range_pass_and_so_does_nothing_at_all(box: Box):
    with RawHttp(box["ranged"]) as client:
        answer = client.ask(out_of_range([-1.0, 1.0, -0.0], [0, 9, 5]).bytes)
        assert answer.json["outputs"][1]["data"] == [0, 9, 5]
        assert client.ask(out_of_range([], []).bytes).status == 200


def test_a_result_that_is_no_number_is_null_and_counted(box: Box):
    nan = np.array([[np.nan, np.inf, 0, 0]], np.float32).tobytes()
    with RawHttp(box["digits"]) as client:
        answer = client.ask(Case(body={"inputs": [sized(16)]}, tail=nan).bytes)
        assert answer.status == 200
        assert None in answer.json["outputs"][0]["data"]
        client.send(request("/metrics", method="GET"))
        figures = client.answer()
        assert figures is not None
        [line] = [line for line in figures.body.splitlines() if line.startswith(b"skerry_inference_not_finite_total{")]
        assert float(line.split()[-1]) > 0


def test_a_large_answer_is_compressed_when_wanted(box: Box):
    rows = np.tile(X, (500, 1))
    inputs = [tensor(rows.ravel().tolist(), shape=rows.shape)]
    with RawHttp(box["digits"]) as client:
        answer = client.ask(Case(body={"inputs": inputs}, headers={"Accept_Encoding": "gzip"}).bytes)
        assert answer.headers["content-encoding"] == "gzip"
        document = json.loads(gzip.decompress(answer.body))
        assert document["outputs"][0]["data"] == affine_answer(rows).ravel().tolist()
        good(client)


def test_head_on_health(box: Box):
    with RawHttp(box["digits"]) as client:
        client.send(request("/v2/health/live", method="HEAD"))
        answer = client.answer(head_only=True)
        assert answer is not None
        assert answer.status == 200
        good(client)


def test_a_wrong_method_names_the_right_one(box: Box):
    with RawHttp(box["digits"]) as client:
        client.send(request("/v2/models/digits/infer", method="GET"))
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        good(client)


# --- sizes that lie -------------------------------------------------------------------------------------------------------


def test_a_claim_of_2_gib_is_refused_before_it_is_sent(box: Box):
    with RawHttp(box["digits"]) as client:
        answer = client.ask(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % GIB2)
        said(answer, 413, LARGE, "exceeds")
        assert client.ended()


def test_chunks_without_end_are_cut_off(box: Box):
    chunk = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    with RawHttp(box["digits"]) as client:
        client.send(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            for sent in range(80):  # noqa: B007 - how far it came is what counts
                client.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent >= 60
        answer = client.answer()
        assert answer is not None
        said(answer, 413, LARGE, "exceeds")
        assert client.ended()


def test_a_million_chunks_of_one_byte_are_one_request(box: Box):
    body = json.dumps(GOOD).encode()
    blanks = b"1\r\n \r\n" * 300_000
    last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with RawHttp(box["digits"]) as client:
        client.send(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = client.ask(blanks + last)
        assert answer.status == 200
        good(client)
