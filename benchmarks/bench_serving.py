# SPDX-License-Identifier: Apache-2.0
"""What serving adds to a bare engine run: one client, a small dense net (128-512-512-512-10), binary and JSON over TCP.

Every round measures the floor (the engine alone, in this process), a health probe (what client, kernel and HTTP cost without
a model) and each path in random order; printed are medians over the rounds' medians and the ratio to the floor of the same round.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import build
from skerry.runtime.onnx import OnnxEngine

ROUNDS = 7
REQUESTS = 1500
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


def p50(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REQUESTS):
        begun = perf_counter()
        call()
        times.append(perf_counter() - begun)
    return median(times) * 1e6


def main() -> None:
    model = dense()
    x = np.random.default_rng(2).standard_normal((1, SIZES[0]), np.float32)
    engine = OnnxEngine.load(model)
    with tempfile.TemporaryDirectory() as folder, listen() as listener:
        bundle = write_bundle(Path(folder), model, {"x": x})
        with RunnerProcess(bundle, listener, probe_seconds=0) as runner:
            runner.serve()
            address = listener.getsockname()[:2]
            paths: dict[str, Callable[[], object]] = {"engine alone": lambda: engine.run({"x": x})}
            sockets = []
            asked = {
                "HTTP health": b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n",
                "HTTP binary": request(x, binary=True),
                "HTTP JSON": request(x, binary=False),
            }
            for name, data in asked.items():
                paths[name], connection = client(address, data)
                sockets.append(connection)
            rounds = [
                {name: p50(paths[name]) for name in random.sample(list(paths), len(paths))} for _ in range(ROUNDS)
            ]
            for connection in sockets:
                connection.close()
    for name in paths:
        over = median(each[name] - each["engine alone"] for each in rounds)
        ratio = median(each[name] / each["engine alone"] for each in rounds)
        print(f"{name:14} p50 {median(each[name] for each in rounds):7.1f} us   +{over:6.1f} us   {ratio:5.2f} x")


if __name__ == "__main__":
    main()
