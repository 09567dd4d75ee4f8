# SPDX-License-Identifier: Apache-2.0
"""The floor: `session.run` in a loop, nothing else, in a process of its own. `bare.py MODEL.onnx INPUT.npy`.

Asked with a JSON object a line on stdin, `{"seconds": 1.0, "every": 0.1}` (0 = without pause); answers with one line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort


def session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _loop(run: ort.InferenceSession, x: np.ndarray, seconds: float, every: float) -> dict[str, float]:
    times = []
    feed = {"input": x}
    begun, cpu = time.perf_counter(), time.process_time()
    while (start := time.perf_counter()) < begun + seconds:
        run.run(["output"], feed)
        times.append(time.perf_counter() - start)
        if every:
            time.sleep(max(0.0, every - times[-1]))
    used = time.process_time() - cpu
    micro = np.array(times) * 1e6
    return {
        "requests": len(times),
        "p50": float(np.median(micro)),
        "p10": float(np.quantile(micro, 0.1)),
        "p99": float(np.quantile(micro, 0.99)),
        "cpu": used * 1e6 / len(times),
    }


def main() -> None:
    run = session(Path(sys.argv[1]))
    x = np.load(sys.argv[2])
    for _ in range(5):
        run.run(["output"], {"input": x})
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_loop(run, x, asked["seconds"], asked.get("every", 0.0))), flush=True)


if __name__ == "__main__":
    main()
