# SPDX-License-Identifier: Apache-2.0
"""What a call costs its caller: each way to a small model (30 us on a quiet machine) over the engine alone, in the same rounds.

In process, over TCP and a unix socket (binary, JSON, asyncio), through a slot of shared memory, and with tritonclient beside
them. `prebuilt bytes` is the same HTTP with nothing to make or to parse: what is above it is the client's own.

    python benchmarks/bench_client.py [rounds]
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
import tritonclient.http as triton

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from bench_serving import client as prebuilt
from bench_serving import dense, request

import skerry
from acceptance.runner_harness import RunnerProcess, listen, write_bundle

CALLS = 1000
Call = Callable[[], object]


def bare(model: bytes, x: np.ndarray) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    return lambda: session.run(None, {"x": x})


def with_triton(address: str, x: np.ndarray) -> Call:
    server = triton.InferenceServerClient(address)

    def call() -> np.ndarray:
        tensor = triton.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        return server.infer("digits", [tensor]).as_numpy("y")

    return call


def over_unix(path: str, data: bytes) -> Call:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(data)
    size = len(connection.recv(65536))

    def call() -> None:
        connection.sendall(data)
        left = size
        while left > 0:
            left -= len(connection.recv(65536))

    return call


def asynchronous(url: str, x: np.ndarray) -> tuple[Call, Call]:
    loop = asyncio.new_event_loop()
    client = skerry.AsyncClient(url)

    async def many() -> list[float]:
        times = []
        for _ in range(CALLS):
            begun = perf_counter()
            await client.infer("digits", {"x": x})
            times.append(perf_counter() - begun)
        return times

    def close() -> None:
        loop.run_until_complete(client.close())
        loop.close()

    return lambda: loop.run_until_complete(many()), close


def sample(call: Call) -> tuple[float, float]:
    """(p50, CPU of this process) in microseconds per call."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    times = []
    for _ in range(CALLS):
        begun = perf_counter()
        given = call()
        times.append(perf_counter() - begun)
        if isinstance(given, list) and given and isinstance(given[0], float):  # has measured itself
            times = given
            break
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return median(times) * 1e6, cpu / len(times) * 1e6


def ways(stack: ExitStack, folder: Path, model: bytes, x: np.ndarray) -> dict[str, Call]:
    bundle = write_bundle(folder / "bundle", model, {"x": x})
    path = str(folder / "s")
    over_tcp = stack.enter_context(listen())
    local = stack.enter_context(socket.socket(socket.AF_UNIX))
    local.bind(path)
    local.listen()
    local.set_inheritable(True)
    runners = [stack.enter_context(RunnerProcess(bundle, each, probe_seconds=0)) for each in (over_tcp, local)]
    for runner in runners:
        runner.serve()
    here = stack.enter_context(skerry.Model(bundle))
    url = runners[0].url
    tcp, unix, shm = (
        stack.enter_context(skerry.Client(each)) for each in (f"http://{url}", f"unix://{path}", f"shm://{path}")
    )
    ask, connection = prebuilt(over_tcp.getsockname()[:2], request(x, binary=True))
    stack.enter_context(connection)
    waiting, close = asynchronous(f"unix://{path}", x)
    stack.callback(close)
    return {
        "session.run": bare(model, x),
        "skerry.Model": lambda: here.infer({"x": x}),
        "shared memory slot": lambda: shm.infer("digits", {"x": x}),
        "unix, prebuilt bytes": over_unix(path, request(x, binary=True)),
        "unix": lambda: unix.infer("digits", {"x": x}),
        "unix, JSON": lambda: unix.infer("digits", {"x": x}, binary=False),
        "unix, asyncio": waiting,
        "tcp, prebuilt bytes": ask,
        "tcp": lambda: tcp.infer("digits", {"x": x}),
        "tcp, tritonclient": with_triton(url, x),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    model = dense()
    x = np.random.default_rng(2).standard_normal((1, 128), np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calls = ways(stack, Path(folder), model, x)
        samples = [
            {name: sample(calls[name]) for name in random.sample(list(calls), len(calls))} for _ in range(rounds)
        ]
    print(f"{'':22} {'p50 us':>8} {'best':>8} {'over session.run':>17} {'best':>8} {'own CPU':>8}")
    for name in calls:
        p50s = [each[name][0] for each in samples]
        over = [each[name][0] - each["session.run"][0] for each in samples]
        floor = min(each["session.run"][0] for each in samples)
        cpu = median(each[name][1] for each in samples)
        print(
            f"{name:22} {median(p50s):8.1f} {min(p50s):8.1f} {median(over):17.1f} {min(p50s) - floor:8.1f} {cpu:8.1f}"
        )


if __name__ == "__main__":
    main()
