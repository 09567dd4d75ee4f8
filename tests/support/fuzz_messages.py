# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="no-untyped-call"
"""Fuzz targets: a gRPC message as a request to a model, and an answer as our own client reads it. First inputs of both, and
of the targets in fuzz_grpc.
"""

from __future__ import annotations

import contextlib
import math

import hpack
import numpy as np

from skerry.client.answer import Answers
from skerry.errors import CallError, InferenceRequestInvalid
from skerry.oip.grpc import requests, wire
from skerry.oip.grpc.descriptors import message_class
from skerry.runtime.datatypes import NUMPY
from support.fuzz_targets import MODELS, assert_valid
from unit.serve.grpc import h2


def grpc_request(data: bytes) -> None:
    """A ModelInferRequest of any bytes, read twice: the second time its head may be remembered."""
    chosen = MODELS[data[0] % len(MODELS)] if data else MODELS[0]
    read: list[dict[str, tuple[tuple[int, ...], list[bytes] | bytes]] | None] = []
    for _ in range(2):
        try:
            request = requests.decode(wire.split(data[1:]), chosen)
        except InferenceRequestInvalid:
            read.append(None)
            continue
        assert_valid(request, chosen)
        read.append(
            {
                name: (array.shape, list(array.flat) if array.dtype == object else array.tobytes())
                for name, array in request.inputs.items()
            }
        )
    assert read[0] == read[1]


def client_answer(data: bytes) -> None:
    """Head and body of an answer, apart at the first empty line, read twice: both may be remembered."""
    answers = Answers("http://h", max_bytes=4000)
    text, _, body = data.partition(b"\r\n\r\n")
    read = []
    for _ in range(2):
        result = None
        with contextlib.suppress(CallError):
            result = answers.result(answers.head(text), memoryview(bytearray(body)), ("y",), "")
            assert all(isinstance(array, np.ndarray) for array in result.values())
        read.append(None if result is None else [(name, array.shape, array.dtype) for name, array in result.items()])
    assert read[0] == read[1]
    with contextlib.suppress(CallError):
        answers.document(answers.head(text), memoryview(body))


TARGETS = {"grpc_request": grpc_request, "client_answer": client_answer}

# --- first inputs --------------------------------------------------------------------------------------------------------

PATHS = (h2.INFER, "/inference.GRPCInferenceService/ServerLive", "/no/such")


def infer_message(number: int) -> bytes:
    """A ModelInferRequest for one of MODELS: raw, all zeros."""
    message = message_class("ModelInferRequest")()
    message.model_name, message.id = "m", "1"
    for spec in MODELS[number].io.inputs:
        tensor = message.inputs.add()
        tensor.name, tensor.datatype = spec.name, spec.dtype
        shape = [2 if axis == -1 else axis for axis in spec.shape]
        tensor.shape.extend(shape)
        size = 4 if spec.dtype == "BYTES" else NUMPY[spec.dtype].itemsize
        message.raw_input_contents.append(bytes(math.prod(shape) * size))
    return bytes(message.SerializeToString())


def _calls() -> list[bytes]:
    """The byte in front is the size of the pieces the rest comes in."""
    bodies = [h2.Peer().call(infer_message(0), path)[1] for path in PATHS]
    peer = h2.Peer()
    bodies.append(b"".join(peer.call(infer_message(0))[1] for _ in range(3)))
    block = hpack.Encoder().encode(h2.call_headers())
    bodies += [
        h2.frame(h2.HEADERS, 0, 1, block[:9]) + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[9:]) + h2.rst(1),
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block) + h2.window_update(0, 9) + h2.frame(h2.PING, 0, 0, bytes(8)),
        h2.settings(table=0, window=1, frame=16_384) + h2.frame(h2.GOAWAY, 0, 0, bytes(8)),
    ]
    return [step + body for body in bodies for step in (b"\0", b"\x10", b"\xff")]


def _answers() -> list[bytes]:
    plain = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    binary = b'{"outputs":[{"name":"y","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d"
    length = b"\r\nInference-Header-Content-Length: %d\r\n\r\n" % len(binary)
    return [
        head % len(plain) + b"\r\n\r\n" + plain,
        head % (len(binary) + 2) + length + binary + b"\1\2",
        b'HTTP/1.1 503 Busy\r\nContent-Length: 13\r\nRetry-After: 1\r\n\r\n{"error":"x"}',
    ]


SEEDS = {
    "grpc_frames": _calls,
    "grpc_split": lambda: [infer_message(number) for number in range(len(MODELS))],
    "grpc_request": lambda: [bytes([number]) + infer_message(number) for number in range(len(MODELS))],
    "client_answer": _answers,
}
