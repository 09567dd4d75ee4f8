# SPDX-License-Identifier: Apache-2.0
"""MLPerf's load generator asks a running server, through Skerry's own client; it decides whether the run is VALID.

    python conformance/serving/loadgen.py http://127.0.0.1:9000 mlp --scenario single-stream
    python conformance/serving/loadgen.py unix:///run/model.sock mlp --scenario server --qps 300 --latency-ms 20

Needs mlcommons-loadgen, numpy and msgspec, and `src` of this checkout on PYTHONPATH. The model takes one FP32 input.
"""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import threading
from pathlib import Path

import mlperf_loadgen as lg
import numpy as np

from skerry.client import Client

SAMPLES = 256
THREADS = 8


class Asked:
    """The system under test: each query is one call of the client, on whichever thread is free."""

    def __init__(self, url: str, model: str, threads: int) -> None:
        self.client = Client(url, keep=threads)
        self.model = model
        [spec] = self.client.metadata(model)["inputs"]
        shape = [1 if axis == -1 else axis for axis in spec["shape"]]
        drawn = np.random.default_rng(7)
        self.samples = [{spec["name"]: drawn.standard_normal(shape).astype(np.float32)} for _ in range(SAMPLES)]
        self.expected = [self._answer(number) for number in range(SAMPLES)]
        self.wrong = 0
        self.waiting: queue.SimpleQueue[lg.QuerySample | None] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=self._work) for _ in range(threads if threads > 1 else 0)]
        for thread in self.threads:
            thread.start()

    def _answer(self, number: int) -> list[bytes]:
        result = self.client.infer(self.model, self.samples[number])
        return [array.tobytes() for array in result.values()]

    def issue(self, queries: list[lg.QuerySample]) -> None:
        for query in queries:
            if self.threads:
                self.waiting.put(query)
            else:
                self._complete(query)

    def _work(self) -> None:
        while (query := self.waiting.get()) is not None:
            self._complete(query)

    def _complete(self, query: lg.QuerySample) -> None:
        self.wrong += self._answer(query.index) != self.expected[query.index]
        lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])

    def close(self) -> None:
        for _ in self.threads:
            self.waiting.put(None)
        for thread in self.threads:
            thread.join()
        self.client.close()


def settings(arguments: argparse.Namespace) -> lg.TestSettings:
    chosen = lg.TestSettings()
    chosen.mode = lg.TestMode.PerformanceOnly
    chosen.min_duration_ms = arguments.seconds * 1000
    chosen.min_query_count = arguments.queries
    if arguments.scenario == "single-stream":
        chosen.scenario = lg.TestScenario.SingleStream
        chosen.single_stream_expected_latency_ns = 200_000
    else:
        chosen.scenario = lg.TestScenario.Server
        chosen.server_target_qps = arguments.qps
        chosen.server_target_latency_ns = int(arguments.latency_ms * 1e6)
    return chosen


def run(asked: Asked, arguments: argparse.Namespace, folder: str) -> str:
    """The generator's own summary."""
    logs = lg.LogSettings()
    logs.log_output.outdir = folder
    logs.enable_trace = False
    sut = lg.ConstructSUT(asked.issue, lambda: None)
    qsl = lg.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(sut, qsl, settings(arguments), logs)
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    return (Path(folder) / "mlperf_log_summary.txt").read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--scenario", choices=("single-stream", "server"), default="single-stream")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--qps", type=float, default=300.0)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    arguments = parser.parse_args()
    asked = Asked(arguments.url, arguments.model, THREADS if arguments.scenario == "server" else 1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            summary = run(asked, arguments, folder)
    finally:
        asked.close()
    sys.stdout.write(summary + f"\nanswers that differ from the first one given: {asked.wrong}\n")
    return 0 if "Result is : VALID" in summary and not asked.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
