# SPDX-License-Identifier: Apache-2.0
"""Every corner case of the protocol we know servers to differ in, with our rule: 4xx for every client error, always JSON."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest
from onnx import TensorProto, helper

from contracts.engine.models import affine_answer, build, classifier, identity
from unit.serve.rig import Rig

X = np.array([[1, 2, 3, 4]], np.float32)
RAW = X.tobytes()


def add_two():
    """a[N] + b[N] -> sum[N], FP32."""
    return build(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [("a", TensorProto.FLOAT, ["N"]), ("b", TensorProto.FLOAT, ["N"])],
        [("sum", TensorProto.FLOAT, ["N"])],
    )


KINDS = {
    "bool": TensorProto.BOOL,
    "i8": TensorProto.INT8,
    "i64": TensorProto.INT64,
    "u8": TensorProto.UINT8,
    "u64": TensorProto.UINT64,
    "f16": TensorProto.FLOAT16,
    "f32": TensorProto.FLOAT,
    "f64": TensorProto.DOUBLE,
    "s": TensorProto.STRING,
}


@pytest.fixture(scope="module")
def rig():
    models = {name: identity(kind) for name, kind in KINDS.items()}
    return Rig({"m": classifier(), "two": add_two(), **models})


def tensor(data=None, *, name="x", shape=(1, 4), datatype="FP32", **more):
    document = {"name": name, "shape": list(shape), "datatype": datatype}
    if data is not None:
        document["data"] = data
    return {**document, **more}


def binary(size, **more):
    return tensor(parameters={"binary_data_size": size}, **more)


FLAT = tensor([1, 2, 3, 4])
GOOD = {"inputs": [FLAT]}


# --- what is refused -----------------------------------------------------------------------------------------------------

REFUSED = {
    "malformed JSON": (b'{"inputs": [', "not valid"),
    "empty body": (b"", "not valid"),
    "not an object": ([], "not valid"),
    "no inputs": ({}, "inputs"),
    "id not a string": ({"id": 5, **GOOD}, "id"),
    "deeply nested rubbish": (b'{"x":' + b"[" * 100_000, "not valid"),
    "not UTF-8": (b'{"id": "\xff", "inputs": []}', "not valid"),
    "parameter null": ({"parameters": {"a": None}, **GOOD}, "parameters"),
    "parameter list": ({"parameters": {"a": [1]}, **GOOD}, "parameters"),
    "timeout not a number": ({"parameters": {"timeout": "soon"}, **GOOD}, "timeout"),
    "timeout beyond any clock": ({"parameters": {"timeout": 10**400}, **GOOD}, "timeout"),
    "too much JSON": (b" " * (16 * 1024 * 1024) + json.dumps(GOOD).encode(), "binary"),
    "timeout negative": ({"parameters": {"timeout": -1}, **GOOD}, "timeout"),
    "binary_data_output not a flag": ({"parameters": {"binary_data_output": "yes"}, **GOOD}, "binary_data_output"),
    "unknown input": ({"inputs": [FLAT, tensor([1], name="z")]}, "no input z"),
    "missing input": ({"inputs": []}, "input x is missing"),
    "input twice": ({"inputs": [FLAT, FLAT]}, "twice"),
    "unknown output": ({**GOOD, "outputs": [{"name": "z"}]}, "no output z"),
    "output twice": ({**GOOD, "outputs": [{"name": "label"}, {"name": "label"}]}, "twice"),
    "classification": (
        {**GOOD, "outputs": [{"name": "scores", "parameters": {"classification": 0}}]},
        "classification must be",
    ),
    "shared memory in": ({"inputs": [tensor(parameters={"shared_memory_region": "secret"})]}, "not offered"),
    "shared memory out": (
        {**GOOD, "outputs": [{"name": "scores", "parameters": {"shared_memory_region": "secret"}}]},
        "not offered",
    ),
    "wrong rank": ({"inputs": [tensor([1, 2, 3, 4], shape=[4])]}, "the model takes"),
    "wrong length of an axis": ({"inputs": [tensor([1, 2], shape=[1, 2])]}, "the model takes"),
    "negative dimension": ({"inputs": [tensor([1, 2, 3, 4], shape=[-1, 4])]}, "not a shape"),
    "absurd dimension": ({"inputs": [tensor([1, 2, 3, 4], shape=[2**62, 4])]}, "not a shape"),
    "shape of fractions": ({"inputs": [tensor([1, 2, 3, 4], shape=[1.5, 4])]}, "shape"),
    "too few values": ({"inputs": [tensor([1, 2, 3])]}, "do not fit shape"),
    "too many values": ({"inputs": [tensor([1, 2, 3, 4, 5])]}, "do not fit shape"),
    "nested otherwise than the shape": ({"inputs": [tensor([[1, 2], [3, 4]])]}, "nested as"),
    "ragged": ({"inputs": [tensor([[1, 2, 3], [4]])]}, "does not fit"),
    "nested 17 deep": (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":' + b"[" * 17 + b"1" + b"]" * 17 + b"}]}",
        "levels",
    ),
    "wrong datatype": ({"inputs": [tensor([1, 2, 3, 4], datatype="INT32")]}, "the model takes FP32"),
    "unknown datatype": ({"inputs": [tensor([1, 2, 3, 4], datatype="FLOAT")]}, "no datatype FLOAT"),
    "NaN literal": (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,1,1,1]}]}', "not valid"),
    "number too large for JSON": (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1e400,1,1,1]}]}',
        "range",
    ),
    "number too large for FP32": ({"inputs": [tensor([1e39, 1, 1, 1])]}, "range"),
    "string among numbers": ({"inputs": [tensor([1, "2", 3, 4])]}, "does not fit"),
    "true among numbers": ({"inputs": [tensor([1, True, 3, 4])]}, "does not fit"),
    "null among numbers": ({"inputs": [tensor([1, None, 3, 4])]}, "does not fit"),
    "data no array": ({"inputs": [tensor(5)]}, "must be an array"),
    "data an object": ({"inputs": [tensor({})]}, "must be an array"),
    "neither data nor binary": ({"inputs": [tensor()]}, "neither"),
    "both data and binary": ({"inputs": [{**FLAT, "parameters": {"binary_data_size": 16}}]}, "both"),
    "binary size without header": ({"inputs": [binary(16)]}, "needs the header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_with_400_and_a_reason(rig, case):
    body, reason = REFUSED[case]
    answer = rig.infer(body)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error", "code"]
    assert reason in answer.json["error"]
    assert "secret" not in answer.json["error"]


DATATYPES_REFUSED = {
    "out of range for INT8": ("i8", "INT8", [300, 0]),
    "negative for UINT8": ("u8", "UINT8", [-1, 0]),
    "out of range for UINT64": ("u64", "UINT64", [2**64, 0]),
    "fraction for INT64": ("i64", "INT64", [2.5, 0]),
    "whole number out of range in the form of a fraction": ("u8", "UINT8", [256.0, 0]),
    "true for INT64": ("i64", "INT64", [True, 0]),
    "number for BOOL": ("bool", "BOOL", [0, 1]),
    "number for BYTES": ("s", "BYTES", [0, 1]),
    "lone surrogate for BYTES": ("s", "BYTES", ["\ud800", ""]),
    "FP16 as JSON": ("f16", "FP16", [1.0, 2.0]),
}


@pytest.mark.parametrize("case", DATATYPES_REFUSED)
def test_values_are_never_bent_to_fit_a_datatype(rig, case):
    model, datatype, data = DATATYPES_REFUSED[case]
    document = {"inputs": [tensor(data, shape=[1, 2], datatype=datatype)]}
    answer = rig.infer(document, path=f"/v2/models/{model}/infer")
    assert answer.status == 400
    assert "x" in answer.json["error"]


BINARY_REFUSED = {
    "bytes short": (binary(16), RAW[:-1], None, "ends before"),
    "bytes left over": (binary(16), RAW + b"!", None, "1 bytes follow"),
    "not the shape's": (binary(12), RAW[:12], None, "needs 16"),
    "size negative": (binary(-1), RAW, None, "number of bytes"),
    "size true": (binary(True), RAW, None, "number of bytes"),
    "size a string": (binary("16"), RAW, None, "number of bytes"),
    "JSON tensor followed by bytes": (FLAT, RAW, None, "16 bytes follow"),
    "header too big": (binary(16), RAW, 10_000, "the body has"),
    "header negative": (binary(16), RAW, -5, "not a number"),
    "header not a number": (binary(16), RAW, "many", "not a number"),
    "header a superscript digit": (binary(16), RAW, "\u00b2", "not a number"),
    "header twice": (binary(16), RAW, "5, 5", "not a number"),
    "header cuts the JSON": (binary(16), RAW, 20, "not valid"),
}


@pytest.mark.parametrize("case", BINARY_REFUSED)
def test_a_wrong_binary_request_is_refused_with_400(rig, case):
    document, tail, header, reason = BINARY_REFUSED[case]
    extra = {} if header is None else {"Inference_Header_Content_Length": header}
    body = json.dumps({"inputs": [document]}).encode()
    if isinstance(header, str):
        request = rig_post_latin(body + tail, header)
        [answer] = rig.send(request)
    else:
        answer = rig.infer(body, tail, **extra)
    assert answer.status == 400
    assert reason in answer.json["error"]


def rig_post_latin(body, header):
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nInference-Header-Content-Length: {header}\r\n"
    return head.encode("latin-1") + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


STRINGS_REFUSED = {
    "an element longer than the data": struct.pack("<I", 99) + b"ab" + struct.pack("<I", 0),
    "cut inside a length": struct.pack("<I", 0) + struct.pack("<I", 0) + b"\0",
    "too few elements": struct.pack("<I", 4) + b"abcd",
    "too many elements": struct.pack("<I", 0) * 3,
    "nothing": b"",
}


@pytest.mark.parametrize("case", STRINGS_REFUSED)
def test_wrong_byte_strings_are_refused_with_400(rig, case):
    data = STRINGS_REFUSED[case]
    document = {"inputs": [binary(len(data), shape=[1, 2], datatype="BYTES")]}
    answer = rig.infer(document, data, path="/v2/models/s/infer")
    assert answer.status == 400


def test_a_bool_byte_other_than_0_or_1_is_refused(rig):
    document = {"inputs": [binary(2, shape=[1, 2], datatype="BOOL")]}
    assert rig.infer(document, b"\x01\x02", path="/v2/models/bool/infer").status == 400


def test_a_string_the_model_cannot_take_is_the_clients_error(rig):
    data = struct.pack("<I", 1) + b"\xff" + struct.pack("<I", 0)
    document = {"inputs": [binary(len(data), shape=[1, 2], datatype="BYTES")]}
    answer = rig.infer(document, data, path="/v2/models/s/infer")
    assert answer.status == 400
    assert "UTF-8" in answer.json["error"]


def test_what_only_the_engine_can_refuse_is_a_500_and_counts_as_an_error():
    rig = Rig({"m": add_two()})
    inputs = [tensor([1, 2], name="a", shape=[2]), tensor([1, 2, 3], name="b", shape=[3])]
    answer = rig.infer({"inputs": inputs})
    assert answer.status == 500
    assert answer.json["error"].startswith("model model failed")
    assert rig.served["m"].counters.failed == {"SKY-6005": 1}


# --- what is answered ----------------------------------------------------------------------------------------------------

ANSWERED = {
    "flat": GOOD,
    "nested": {"inputs": [tensor([[1, 2, 3, 4]])]},
    "whole numbers, fractions and blanks": b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data": [1, 2.0,\n3e0, 4]}]}',
    "unknown keys": {"model_name": "other", "future": [1], **GOOD},
    "parameters of other servers": {"parameters": {"content_type": "np", "priority": 1, "f": 1.5}, **GOOD},
    "outputs empty means all": {"outputs": [], **GOOD},
    "generous timeout": {"parameters": {"timeout": 60_000_000}, **GOOD},
}


@pytest.mark.parametrize("case", ANSWERED)
def test_a_right_request_is_answered(rig, case):
    answer = rig.infer(ANSWERED[case])
    assert answer.status == 200
    assert answer.json == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": affine_answer(X)[0].tolist()},
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [int(affine_answer(X).argmax())]},
        ],
    }


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json; charset=utf-8"])
def test_content_type_decides_nothing(rig, content_type):
    headers = {} if content_type is None else {"Content_Type": content_type}
    assert rig.infer(GOOD, **headers).status == 200


@pytest.mark.parametrize("identifier", ["", "abc", "grüße"])
def test_an_id_is_echoed_when_sent(rig, identifier):
    assert rig.infer({"id": identifier, **GOOD}).json["id"] == identifier
    assert "id" not in rig.infer(GOOD).json


def test_outputs_come_in_the_models_order_whatever_the_requests(rig):
    answer = rig.infer({"outputs": [{"name": "label"}, {"name": "scores"}], **GOOD})
    assert [output["name"] for output in answer.json["outputs"]] == ["scores", "label"]
    answer = rig.infer({"outputs": [{"name": "label"}], **GOOD})
    assert [output["name"] for output in answer.json["outputs"]] == ["label"]


def test_zero_rows_where_the_axis_is_open(rig):
    answer = rig.infer({"inputs": [tensor([], shape=[0, 4])]})
    assert answer.status == 200
    assert answer.json["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [0, 3], "data": []}


def test_binary_in_binary_out(rig):
    answer = rig.infer({"inputs": [binary(16)], "parameters": {"binary_data_output": True}}, RAW)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert [output["parameters"] for output in answer.json["outputs"]] == [
        {"binary_data_size": 12},
        {"binary_data_size": 8},
    ]
    assert all("data" not in output for output in answer.json["outputs"])
    assert answer.tail == affine_answer(X).tobytes() + affine_answer(X).argmax(1).tobytes()


def test_binary_in_json_out_by_default(rig):
    answer = rig.infer({"inputs": [binary(16)]}, RAW)
    assert "inference-header-content-length" not in answer.headers
    assert answer.json["outputs"][0]["data"] == affine_answer(X)[0].tolist()


def test_one_output_binary_the_other_json(rig):
    answer = rig.infer(
        {"outputs": [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}], **GOOD}
    )
    scores, label = answer.json["outputs"]
    assert scores["parameters"] == {"binary_data_size": 12}
    assert label["data"] == [int(affine_answer(X).argmax())]
    assert answer.tail == affine_answer(X).tobytes()


def test_binary_data_output_holds_for_an_output_named_without_a_flag(rig):
    document = {"parameters": {"binary_data_output": True}, **GOOD}
    answer = rig.infer({**document, "outputs": [{"name": "scores"}]})
    assert answer.tail == affine_answer(X).tobytes()
    answer = rig.infer({**document, "outputs": [{"name": "scores", "parameters": {"binary_data": False}}]})
    assert "data" in answer.json["outputs"][0]


def test_json_and_binary_inputs_mix_in_the_order_of_the_json(rig):
    a = np.array([1, 2], np.float32)
    inputs = [binary(8, name="b", shape=[2]), tensor([10, 20], name="a", shape=[2])]
    answer = rig.infer({"inputs": inputs}, a.tobytes(), path="/v2/models/two/infer")
    assert answer.json["outputs"][0]["data"] == [11, 22]
    inputs = [binary(8, name="b", shape=[2]), binary(8, name="a", shape=[2])]
    answer = rig.infer({"inputs": inputs}, a.tobytes() + (a * 10).tobytes(), path="/v2/models/two/infer")
    assert answer.json["outputs"][0]["data"] == [11, 22]


@pytest.mark.parametrize("pad", range(4))
def test_binary_data_at_any_alignment_and_blanks_after_the_json(rig, pad):
    head = json.dumps({"inputs": [binary(16)]}).encode() + b" " * pad
    assert rig.infer(head, RAW).json["outputs"][0]["data"] == affine_answer(X)[0].tolist()


def test_a_raw_request_is_only_the_inputs_bytes_and_answered_in_binary(rig):
    two_rows = np.concatenate([X, X + 1])
    answer = rig.post("/v2/models/m/infer", two_rows.tobytes(), Inference_Header_Content_Length=0)
    assert answer.status == 200
    assert answer.json["outputs"][0]["shape"] == [2, 3]
    assert answer.tail[:24] == affine_answer(two_rows).tobytes()


@pytest.mark.parametrize(("model", "body"), [("two", RAW), ("m", RAW[:-1]), ("s", b"abc")])
def test_a_raw_request_that_leaves_room_for_doubt_is_refused(rig, model, body):
    assert rig.post(f"/v2/models/{model}/infer", body, Inference_Header_Content_Length=0).status == 400


def test_a_raw_string_has_no_length_in_front():
    rig = Rig({"m": identity(TensorProto.STRING, [1, 1])})
    answer = rig.post("/v2/models/m/infer", b"hello", Inference_Header_Content_Length=0)
    assert answer.tail == struct.pack("<I", 5) + b"hello"


JSON_VALUES = {
    "bool": ("BOOL", [True, False]),
    "i8": ("INT8", [-128, 127]),
    "i64": ("INT64", [-(2**63), 2**63 - 1]),
    "u8": ("UINT8", [0, 255]),
    "u64": ("UINT64", [0, 2**64 - 1]),
    "f32": ("FP32", [0.5, -1.25]),
    "f64": ("FP64", [1e300, -0.1]),
    "s": ("BYTES", ["grüße", ""]),
}


@pytest.mark.parametrize("model", JSON_VALUES)
def test_every_datatype_with_a_json_form_comes_back_as_it_went(rig, model):
    datatype, data = JSON_VALUES[model]
    answer = rig.infer({"inputs": [tensor(data, shape=[1, 2], datatype=datatype)]}, path=f"/v2/models/{model}/infer")
    assert answer.json["outputs"][0] == {"name": "y", "datatype": datatype, "shape": [1, 2], "data": data}


BINARY_VALUES = {
    "bool": ("BOOL", b"\x01\x00"),
    "i8": ("INT8", b"\x80\x7f"),
    "u64": ("UINT64", b"\xff" * 16),
    "f16": ("FP16", np.array([1.5, -2], "<f2").tobytes()),
    "f64": ("FP64", np.array([1e300, np.nan], "<f8").tobytes()),
    "s": ("BYTES", struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0)),
}


@pytest.mark.parametrize("model", BINARY_VALUES)
def test_every_datatype_comes_back_byte_for_byte(rig, model):
    datatype, data = BINARY_VALUES[model]
    document = {
        "inputs": [binary(len(data), shape=[1, 2], datatype=datatype)],
        "parameters": {"binary_data_output": True},
    }
    answer = rig.infer(document, data, path=f"/v2/models/{model}/infer")
    assert answer.status == 200
    assert answer.tail == data


def test_fp16_asked_for_as_json_is_refused_with_a_hint_before_it_runs(rig):
    answer = rig.infer({"inputs": [binary(4, shape=[1, 2], datatype="FP16")]}, b"\0" * 4, path="/v2/models/f16/infer")
    assert answer.status == 400
    assert "binary" in answer.json["error"]


def test_values_that_are_not_finite_are_null_in_json_and_counted():
    rig = Rig({"m": identity(TensorProto.FLOAT)})
    data = np.array([np.nan, np.inf], np.float32).tobytes()
    answer = rig.infer({"inputs": [binary(8, shape=[1, 2])]}, data)
    assert answer.json["outputs"][0]["data"] == [None, None]
    assert rig.served["m"].counters.not_finite == 2


# --- encodings -----------------------------------------------------------------------------------------------------------


def squeeze(body, name):
    return gzip.compress(body, mtime=0) if name == "gzip" else zlib.compress(body)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_compressed_request_counts_its_json_uncompressed(rig, name):
    head = json.dumps({"inputs": [binary(16)]}).encode()
    answer = rig.post(
        "/v2/models/m/infer",
        squeeze(head + RAW, name),
        Content_Encoding=name,
        Inference_Header_Content_Length=len(head),
    )
    assert answer.json["outputs"][0]["data"] == affine_answer(X)[0].tolist()


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"x", 415),
        ("gzip, gzip", gzip.compress(b"{}", mtime=0), 415),
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(json.dumps(GOOD).encode(), mtime=0)[:-3], 400),
        ("gzip", gzip.compress(json.dumps(GOOD).encode(), mtime=0) + b"more", 400),
        ("identity", json.dumps(GOOD).encode(), 200),
    ],
)
def test_other_encodings(rig, encoding, body, status):
    assert rig.post("/v2/models/m/infer", body, Content_Encoding=encoding).status == status


def test_a_bomb_is_stopped_at_the_limit():
    rig = Rig(body_limit=10_000)
    answer = rig.post("/v2/models/m/infer", gzip.compress(b" " * 10_001), Content_Encoding="gzip")
    assert answer.status == 413


@pytest.mark.parametrize(
    ("accepted", "rows", "expected"),
    [
        ("gzip", 1, None),
        ("gzip", 100, "gzip"),
        ("deflate", 100, "deflate"),
        ("gzip;q=0, br", 100, None),
        ("br", 100, None),
    ],
)
def test_an_answer_is_compressed_when_asked_and_worth_it(rig, accepted, rows, expected):
    data = np.tile(X, (rows, 1))
    document = {"inputs": [binary(data.nbytes, shape=data.shape)], "parameters": {"binary_data_output": True}}
    answer = rig.infer(document, data.tobytes(), Accept_Encoding=accepted)
    assert answer.headers.get("content-encoding") == expected
    plain = answer.body
    if expected:
        plain = zlib.decompress(answer.body, zlib.MAX_WBITS | (16 if expected == "gzip" else 0))
    head = int(answer.headers["inference-header-content-length"])
    assert json.loads(plain[:head])["model_name"] == "m"
    assert plain[head:].startswith(affine_answer(data).tobytes())


@pytest.mark.parametrize("data", [[225.0, 1e2], [[225.0, 100]], [2.25e2, 100]])
def test_a_whole_number_is_one_however_it_is_written(rig, data):
    answer = rig.infer({"inputs": [tensor(data, shape=[1, 2], datatype="UINT8")]}, path="/v2/models/u8/infer")
    assert answer.json["outputs"][0]["data"] == [225, 100]


def test_a_large_whole_number_is_not_its_neighbour(rig):
    data = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT64","data":[9007199254740993.0,6.7e16]}]}'
    answer = rig.infer(data, path="/v2/models/i64/infer")
    assert answer.json["outputs"][0]["data"] == [9007199254740993, 67000000000000000]


@pytest.mark.parametrize("value", ["1e400", "1e308", "0.5", '"1"', "1e19", "-1.5e300", "NaN"])
def test_numbers_that_are_no_int64(rig, value):
    data = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT64","data":[1.0,%s]}]}' % value.encode()
    assert rig.infer(data, path="/v2/models/i64/infer").status == 400
