# SPDX-License-Identifier: Apache-2.0
"""What a call costs its caller: each way to a small model (30 us on a quiet machine) over the engine alone, in the same rounds.

In process, over TCP and a unix socket (binary, JSON, asyncio), through a slot of shared memory, and with tritonclient beside
them. `prebuilt bytes` is the same HTTP with nothing to make or to parse: what is above it is the client's own.

Rounds are short and many and their order is random. Printed are the median over rounds of each round's p50, with the difference
to `session.run` in the same round, and the same for the fastest 5 % of all calls: what is left of them on a machine that does
other things meanwhile.

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

from serving_bench.dense import client as prebuilt
from serving_bench.dense import dense, request

import skerry
from acceptance.runner_harness import RunnerProcess, listen, write_bundle

CALLS = 200
FLOOR = "session.run"
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


def sample(call: Call) -> tuple[list[float], float]:
    """(microseconds of every call, CPU of this process per call in microseconds)."""
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
    return [seconds * 1e6 for seconds in times], cpu / len(times) * 1e6


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
        FLOOR: bare(model, x),
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
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    model = dense()
    x = np.random.default_rng(2).standard_normal((1, 128), np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calls = ways(stack, Path(folder), model, x)
        samples = [
            {name: sample(calls[name]) for name in random.sample(list(calls), len(calls))} for _ in range(rounds)
        ]
    floor = quick(samples, FLOOR)
    print(f"{'':22} {'p50 us':>8} {'over':>8} {'p5 us':>8} {'over':>8} {'own CPU':>8}")
    for name in calls:
        p50 = median(median(each[name][0]) for each in samples)
        over = median(median(each[name][0]) - median(each[FLOOR][0]) for each in samples)
        cpu = median(each[name][1] for each in samples)
        best = quick(samples, name)
        print(f"{name:22} {p50:8.1f} {over:8.1f} {best:8.1f} {best - floor:8.1f} {cpu:8.1f}")


def quick(samples: list[dict[str, tuple[list[float], float]]], name: str) -> float:
    return float(np.percentile([time for each in samples for time in each[name][0]], 5))


if __name__ == "__main__":
    main()
