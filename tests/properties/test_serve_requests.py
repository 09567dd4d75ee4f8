# SPDX-License-Identifier: Apache-2.0
"""Whatever a client sends is answered with what it asked for or refused as its own fault: never a 5xx, never other values."""

import json
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto

from contracts.engine.models import identity
from skerry.runtime.datatypes import NUMPY
from unit.serve.rig import Rig, post

KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
CLIENTS_FAULT = {400, 404, 405, 408, 413, 415, 417, 431}
RIG = Rig({name: identity(kind, ["A", "B"]) for name, kind in KINDS.items()})

datatypes = st.sampled_from(sorted(KINDS))
shapes = st.tuples(st.integers(0, 3), st.integers(0, 3))


def values(datatype, shape):
    if datatype == "BYTES":
        count = shape[0] * shape[1]
        return st.lists(st.text(max_size=5), min_size=count, max_size=count).map(
            lambda texts: np.array([text.encode() for text in texts], dtype=object).reshape(shape)
        )
    return arrays.arrays(NUMPY[datatype], shape)


tensors = st.tuples(datatypes, shapes).flatmap(lambda kind: st.tuples(st.just(kind[0]), values(*kind)))


def raw(array):
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.flat)
    return array.tobytes()


def plain(array):
    """Values as JSON has them; None when it has none for them."""
    if array.dtype == object:
        return [value.decode() for value in array.flat]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return None
    return array.ravel().tolist()


def nested(flat, shape):
    return [flat[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0])]


def ask(datatype, document, tail=None, rig=RIG):
    rig.connect()
    answer = rig.infer(document, tail, path=f"/v2/models/{datatype}/infer")
    rig.connection.connection_lost(None)
    return answer


def assert_same(answer, datatype, array, *, binary):
    assert answer.status == 200, answer.body
    [output] = answer.json["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, list(array.shape))
    if binary:
        assert answer.tail == raw(array)
    else:
        assert output["data"] == plain(array)


@settings(max_examples=400, deadline=None)
@given(tensors, st.booleans())
def test_binary_in_any_form_out(tensor, out):
    datatype, array = tensor
    flat = plain(array)
    out = out or datatype == "FP16" or flat is None
    body = {
        "inputs": [
            {
                "name": "x",
                "shape": list(array.shape),
                "datatype": datatype,
                "parameters": {"binary_data_size": len(raw(array))},
            }
        ],
        "parameters": {"binary_data_output": out},
    }
    assert_same(ask(datatype, body, raw(array)), datatype, array, binary=out)


@settings(max_examples=400, deadline=None)
@given(tensors.filter(lambda each: each[0] != "FP16" and plain(each[1]) is not None), st.booleans(), st.booleans())
def test_json_flat_or_nested_in_any_form_out(tensor, out, nest):
    datatype, array = tensor
    flat = plain(array)
    data = nested(flat, array.shape) if nest else flat
    body = {
        "inputs": [{"name": "x", "shape": list(array.shape), "datatype": datatype, "data": data}],
        "parameters": {"binary_data_output": out},
    }
    assert_same(ask(datatype, body), datatype, array, binary=out)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**39, 2**63, 2**64, 10**400, -1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
odd_tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | json_values,
        "shape": st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**39, 2**63]), max_size=3) | json_values,
        "datatype": datatypes | st.just("BF16") | json_values,
        "data": st.lists(st.lists(st.text(max_size=2) | st.integers(0, 3), max_size=3), max_size=3) | json_values,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "shared_memory_region", "z"]), st.integers(-1, 16) | json_values
        ),
    },
)
odd_requests = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(odd_tensors, max_size=3) | json_values,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["y", "z"]), "parameters": json_values}))
        | json_values,
        "id": st.text(max_size=4) | json_values,
        "parameters": st.dictionaries(st.sampled_from(["timeout", "binary_data_output", "z"]), json_values)
        | json_values,
    },
)


def odd(datatype, shape, **tensor):
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, **tensor}]}


@settings(max_examples=1500, deadline=None)
@given(datatypes, odd_requests, st.none() | st.binary(max_size=24))
@example("BYTES", odd("BYTES", [2, 2], data=[["a"], ["b", "c", "d"]]), None)
@example("FP32", odd("FP32", [2**39, 0], parameters={"binary_data_size": 0}), b"")
@example("FP32", {"parameters": {"timeout": 10**400}, **odd("FP32", [1, 1], data=[1])}, None)
def test_documents_of_any_content_are_answered_or_the_clients_fault(datatype, document, tail):
    answer = ask(datatype, document, tail)
    assert answer.status in {200, *CLIENTS_FAULT}, answer.body
    if answer.status == 200:
        [given_] = document["inputs"]
        [output] = answer.json["outputs"]
        assert output["shape"] == given_["shape"]
    else:
        assert list(answer.json) == ["error", "code"]


@pytest.fixture(scope="module")
def infer():
    tail = np.arange(4, dtype="<f4").tobytes()
    head = {
        "id": "7",
        "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": len(tail)}}],
    }
    text = json.dumps(head).encode()
    return post("/v2/models/FP32/infer", text + tail, Inference_Header_Content_Length=len(text))


splices = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 6), st.binary(max_size=6) | st.sampled_from([b"\r\n", b"\n", b":"])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1500, deadline=None)
@given(splices)
def test_a_damaged_request_is_answered_or_the_clients_fault(infer, changes):
    data = infer
    for at, gone, new in changes:
        data = data[:at] + new + data[at + gone :]
    RIG.connect()
    answers = RIG.send(data)
    RIG.connection.connection_lost(None)
    for answer in answers:
        assert answer.status in {200, *CLIENTS_FAULT}, answer.body


LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = (
    b"POST /v2/models/FP32/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n"
)
UPGRADE = b"GET /v2 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
UPGRADE_POST = (
    b"POST /v2/models/FP32/infer HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"
)
pieces = st.lists(
    st.sampled_from(
        [
            LIVE,
            CHUNKED,
            UPGRADE,
            UPGRADE_POST,
            b"HEAD /v2 HTTP/1.1\r\n\r\n",
            b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"CONNECT h:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
            b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"RUBBISH\r\n\r\n",
            b"\r\n",
        ]
    )
    | st.binary(max_size=8),
    max_size=5,
).map(b"".join)


def sent(parts):
    RIG.connect()
    for part in parts:
        RIG.connection.data_received(part)
    data = RIG.transport.sent
    RIG.connection.connection_lost(None)
    return data


@settings(max_examples=1000, deadline=None)
@given(pieces, st.lists(st.integers(0, 400), max_size=6))
def test_how_the_bytes_arrive_changes_nothing(data, cuts):
    """A pipeline read in other pieces has the same answers: what is one request does not depend on timing."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert sent([data[a:b] for a, b in pairwise(edges)]) == sent([data])
