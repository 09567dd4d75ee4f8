# SPDX-License-Identifier: Apache-2.0
"""A small dense net (128-512-512-512-10), requests for it as bytes, and a client of prebuilt bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from contracts.engine.models import build

SIZES = (128, 512, 512, 512, 10)


def dense() -> bytes:
    rng = np.random.default_rng(1)
    nodes, weights = [], []
    last = len(SIZES) - 2
    for layer, (rows, columns) in enumerate(pairwise(SIZES)):
        weights.append(numpy_helper.from_array(rng.standard_normal((rows, columns), np.float32) / 20, f"w{layer}"))
        result = "y" if layer == last else f"m{layer}"
        nodes.append(helper.make_node("MatMul", ["x" if layer == 0 else f"r{layer - 1}", f"w{layer}"], [result]))
        if layer != last:
            nodes.append(helper.make_node("Relu", [result], [f"r{layer}"]))
    return build(
        nodes,
        [("x", TensorProto.FLOAT, ["N", SIZES[0]])],
        [("y", TensorProto.FLOAT, ["N", SIZES[-1]])],
        weights,
    )


def request(x: np.ndarray, *, binary: bool) -> bytes:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32"}
    tail = b""
    if binary:
        tail = x.tobytes()
        head = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}
        head["parameters"] = {"binary_data_output": True}  # type: ignore[assignment] # a JSON object of two shapes
    else:
        head = {"inputs": [{**tensor, "data": x.ravel().tolist()}]}
    text = json.dumps(head).encode()
    lines = ["POST /v2/models/digits/infer HTTP/1.1", "Host: h", f"Content-Length: {len(text) + len(tail)}"]
    if binary:
        lines.append(f"Inference-Header-Content-Length: {len(text)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text + tail


def client(address: tuple[str, int], data: bytes) -> tuple[Callable[[], None], socket.socket]:
    """A closed loop with prebuilt bytes: the client's own share stays small. Answers are always of the same length."""
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(data)
    answer = connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(answer.decode())
    size = len(answer)

    def ask() -> None:
        connection.sendall(data)
        left = size
        while left > 0:
            left -= len(connection.recv(65536))

    return ask, connection
