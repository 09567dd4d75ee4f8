# SPDX-License-Identifier: Apache-2.0
"""The closed loop over shared memory, through `skerry.client`: `shared.py SOCKET MODEL INPUT.npy OUTPUT.npy SECONDS WARM`.

Prints what load.c prints. The client is Python here, and what it costs is part of the latency. A call that did not go through
memory the server had shared would be one over the unix socket: then there is no figure.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from skerry.client import Client


def _shares_memory() -> bool:
    return "memfd:" in Path("/proc/self/maps").read_text("utf-8")


def main() -> None:
    path, model = sys.argv[1:3]
    x, y = (np.load(file) for file in sys.argv[3:5])
    seconds, warm = float(sys.argv[5]), int(sys.argv[6])
    times, bad = [], 0
    with Client(f"shm://{path}") as client:
        first = client.infer(model, {"input": x})["output"]
        for _ in range(warm):
            client.infer(model, {"input": x})
        problem = "" if _shares_memory() else "the server gave no slot"
        if first.shape != y.shape or not np.allclose(first, y, rtol=1e-3, atol=1e-3 * float(np.abs(y).max())):
            problem = "another answer than the bare engine's"
        begun, cpu = time.perf_counter(), time.process_time()
        while not problem and (start := time.perf_counter()) < begun + seconds:
            answer = client.infer(model, {"input": x})
            times.append(time.perf_counter() - start)
            bad += not np.array_equal(answer["output"], first)
        took, used = time.perf_counter() - begun, time.process_time() - cpu
    micro = np.sort(np.array(times or [0.0])) * 1e6
    quantiles = {name: float(np.quantile(micro, share)) for name, share in _SHARES.items()}
    total = len(times) + warm
    print(
        json.dumps(
            {
                **quantiles,
                "requests": len(times),
                "total": total,
                "bad": bad + bool(problem),
                "seconds": took,
                "mean": float(micro.mean()),
                "client_cpu": used * 1e6 / max(1, len(times)),
                "problem": problem or ("another answer than expected" if bad else ""),
            }
        )
    )


_SHARES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}

if __name__ == "__main__":
    main()
