# SPDX-License-Identifier: Apache-2.0
"""Answers of a server that lies."""

import json

import numpy as np
import pytest

from skerry.client.answer import HEAD_END, Answers
from skerry.errors import AnswerNotUnderstood, CallRefused
from skerry.runtime.datatypes import BF16
from unit.client.scripted import GOOD, Y, answer, described, inferred


def read(data, *, wanted=(), request_id="", reader=None, max_bytes=1 << 20):
    reader = reader or Answers("unix:///x", max_bytes=max_bytes)
    text, _, body = data.partition(HEAD_END)
    return reader.result(reader.head(text), memoryview(body), wanted, request_id)


def test_binary_tensors_are_the_callers_own():
    result = read(GOOD)
    assert result["y"].tolist() == [0, 1, 2]
    assert result["y"].flags.writeable
    assert result["y"].flags.aligned
    assert (result.model, result.version, result.id, result.datatypes) == ("m", "1", "", {"y": "FP32"})


def test_what_is_remembered_gives_the_same():
    reader = Answers("u", max_bytes=1 << 20)
    first, second = (read(GOOD, reader=reader) for _ in range(2))
    first["y"][:] = 9
    assert second["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP16", np.array([1.5], np.float16)),
        ("BF16", np.array([[0x3F80]], np.uint16).view(BF16)),
        ("BOOL", np.array([True, False])),
        ("INT64", np.array([-(2**62)], np.int64)),
        ("UINT8", np.zeros((2, 0, 3), np.uint8)),
        ("FP64", np.array(2.5)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_datatypes(datatype, array):
    result = read(inferred(described("y", array, datatype), tail=array.tobytes()))
    assert result["y"].dtype == array.dtype
    assert np.array_equal(result["y"], array)
    assert result.datatypes["y"] == datatype


def test_bytes():
    tail = b"\x01\0\0\0a\0\0\0\0"
    result = read(
        inferred({"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 9}}, tail=tail)
    )
    assert result["t"].tolist() == [b"a", b""]


def test_json_and_binary_mixed_in_the_order_of_the_answer():
    data = inferred(
        {"name": "a", "datatype": "INT64", "shape": [2], "data": [1, 2]}, described("y", Y), tail=Y.tobytes()
    )
    result = read(data)
    assert list(result) == ["a", "y"]
    assert result["a"].tolist() == [1, 2]


def test_null_among_floats_is_nan():
    result = read(inferred({"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, None]}))
    assert result["y"].dtype == np.float32
    assert np.array_equal(result["y"], np.array([1.5, np.nan], np.float32), equal_nan=True)


def test_an_output_of_some_kind_unknown_is_ignored_in_its_parameters_only():
    output = described("y", Y)
    output["parameters"]["whatever"] = {"deep": [1]}
    assert read(inferred(output, tail=Y.tobytes(), parameters={"x": None}))["y"].tolist() == [0, 1, 2]


SHAPES = ([-3], [3, -1, -1], [2**62, 4], [1] * 40, [0, 2**63 - 1, 2**63 - 1])


@pytest.mark.parametrize(
    "data",
    [
        inferred(described("y", Y), tail=b""),
        inferred(described("y", Y), tail=Y.tobytes() + b"x"),
        inferred(described("y", Y), described("y", Y), tail=Y.tobytes() * 2),
        inferred(described("y", Y, size=11), tail=Y.tobytes()[:11]),
        inferred(described("y", Y, size=-12), tail=Y.tobytes()),
        inferred(described("y", Y, size=True), tail=b"x"),
        inferred(described("y", Y, size=2**40), tail=Y.tobytes()),
        inferred(described("y", Y, size="12"), tail=Y.tobytes()),
        inferred(described("y", Y, "FP64"), tail=Y.tobytes()),
        inferred(described("y", Y, "FP8"), tail=Y.tobytes()),
        *(inferred({**described("y", Y), "shape": shape}, tail=Y.tobytes()) for shape in SHAPES),
        *(inferred({**described("y", Y, size=0), "shape": shape}) for shape in SHAPES[:1] + SHAPES[-1:]),
        inferred({**described("y", Y), "shape": [1.5, 2]}, tail=Y.tobytes()),
        inferred(
            {"name": "t", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
            tail=b"\xff\xff\xff\xff.",
        ),
        inferred(
            {"name": "t", "datatype": "BYTES", "shape": [2**62], "parameters": {"binary_data_size": 4}},
            tail=b"\0\0\0\0",
        ),
        inferred({"name": "t", "datatype": "BYTES", "shape": [0, 2**62, 2**62], "parameters": {"binary_data_size": 0}}),
        inferred({"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5]}),
        inferred({"name": "y", "datatype": "FP32", "shape": [2], "data": [None, "a"]}),
        inferred({"name": "y", "datatype": "INT32", "shape": [1], "data": [None]}),
        inferred({"name": "y", "datatype": "FP32", "shape": [1]}),
        inferred({"datatype": "FP32", "shape": [1], "data": [1]}),
        answer(b"{}", tensors_at=2),
        answer(b'{"outputs": {}}'),
        answer(b"[" * 100_000),
        answer(b"\xff\xfe"),
        answer(b""),
        answer(b"{}", tensors_at=3),
    ],
)
def test_what_does_not_add_up_is_refused(data):
    with pytest.raises(AnswerNotUnderstood):
        read(data)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"SSH-2.0-x",
        b"HTTP/2 200",
        b"HTTP/1.1 20x OK",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30,
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nInference-Header-Content-Length: 1\r\ninference-header-content-length: 0",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nInference-Header-Content-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nno colon",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Encoding: gzip",
    ],
)
def test_heads_that_are_none(head):
    with pytest.raises(AnswerNotUnderstood):
        Answers("u", max_bytes=1 << 20).head(head)


def test_whether_the_connection_stays():
    reader = Answers("u", max_bytes=9)
    length = b"\r\nContent-Length: 0"
    assert reader.head(b"HTTP/1.1 200 OK" + length).keep_alive
    assert not reader.head(b"HTTP/1.1 200 OK\r\nConnection: Close" + length).keep_alive
    assert not reader.head(b"HTTP/1.0 200 OK" + length).keep_alive
    assert reader.head(b"HTTP/1.0 200 OK\r\nConnection: keep-alive" + length).keep_alive


def test_an_answer_to_another_request_is_refused():
    data = inferred(described("y", Y), tail=Y.tobytes(), id="b")
    assert read(data, request_id="b").id == "b"
    with pytest.raises(AnswerNotUnderstood, match="another request"):
        read(data, request_id="a")


def test_an_output_that_was_asked_for_must_be_there():
    assert read(GOOD, wanted=("y",))["y"].size == 3
    with pytest.raises(AnswerNotUnderstood, match="output z"):
        read(GOOD, wanted=("z",))


@pytest.mark.parametrize(
    ("body", "problem", "code"),
    [
        (json.dumps({"error": "no such input"}).encode(), "no such input", ""),
        (json.dumps({"error": "busy", "code": "SKY-6009"}).encode(), "busy", "SKY-6009"),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>", ""),
        (b"", "no reason given", ""),
        (b"\xff", "\ufffd", ""),
        (b'{"error": {"a": 1}}', '{"error": {"a": 1}}', ""),
        (b"x" * 100_000, "x" * 500, ""),
    ],
)
def test_a_refusal_says_status_code_and_text(body, problem, code):
    with pytest.raises(CallRefused) as caught:
        read(answer(body, status="503 Service Unavailable", extra=("Retry-After: 2",)))
    assert caught.value.fields == {
        "url": "unix:///x",
        "status": 503,
        "problem": problem,
        "server_code": code,
        "retry_after": "2",
    }


def test_memory_for_what_repeats_is_bounded():
    reader = Answers("u", max_bytes=1 << 20)
    for number in range(300):
        read(
            inferred(described("y", Y), tail=Y.tobytes(), model_version=str(number), extra=(f"X: {number}",)),
            reader=reader,
        )
    assert len(reader._heads) <= 64
    assert len(reader._layouts) <= 64
