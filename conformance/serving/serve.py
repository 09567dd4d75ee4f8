# SPDX-License-Identifier: Apache-2.0
"""A real runner on loopback for somebody else's judge: prints its address and serves until its input ends or it is told to.

    .venv/bin/python conformance/serving/serve.py --model digits --port 9000

`digits` classifies x FP32 [-1,4]; `types` gives back one tensor of each datatype, `plain` of each
that has a JSON form; `mlp` takes about 30 us a run; its version is a
whole number, without which perf_analyzer shows no figures of the server.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from acceptance.runner_harness import RunnerProcess, write_bundle  # noqa: E402 - after the path
from contracts.engine.models import build, classifier, identities  # noqa: E402

LAYERS = (128, 512, 512, 512, 10)
TYPES = {
    "BOOL": np.array([[True, False]]),
    **{f"UINT{bits}": np.array([[0, 2**bits - 1]], f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{
        f"INT{bits}": np.array([[-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]], f"i{bits // 8}") for bits in (8, 16, 32, 64)
    },
    "FP16": np.array([[-2, 1.5]], np.float16),
    "FP32": np.array([[0.5, -1.25]], np.float32),
    "FP64": np.array([[1e300, -0.1]], np.float64),
    "BYTES": np.array([["grüße".encode(), b""]], object),
}


def mlp() -> bytes:
    """x[N,128] -> scores[N,10]: three hidden layers of 512, weights drawn anew but always the same."""
    drawn = np.random.default_rng(7)
    nodes, weights, source = [], [], "x"
    for layer, (rows, columns) in enumerate(pairwise(LAYERS)):
        last = layer == len(LAYERS) - 2
        product, target = f"m{layer}", "scores" if last else f"h{layer}"
        weights.append(numpy_helper.from_array(drawn.standard_normal((rows, columns), np.float32) / 16, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [source, f"w{layer}"], [target if last else product]))
        if not last:
            nodes.append(helper.make_node("Relu", [product], [target]))
        source = target
    inputs, outputs = [("x", TensorProto.FLOAT, ["N", 128])], [("scores", TensorProto.FLOAT, ["N", 10])]
    return build(nodes, inputs, outputs, weights)


def bundle(folder: Path, name: str) -> Path:
    if name == "digits":
        return write_bundle(folder, classifier(), {"x": np.arange(12, dtype=np.float32).reshape(3, 4)})
    if name in {"types", "plain"}:
        values = {each: value for each, value in TYPES.items() if name == "types" or each != "FP16"}
        kinds = {each: helper.np_dtype_to_tensor_dtype(value.dtype) for each, value in values.items()}
        return write_bundle(folder, identities(kinds), values, name=name)
    return write_bundle(folder, mlp(), {"x": np.ones((2, 128), np.float32)}, name="mlp", version="1")


def listener(arguments: argparse.Namespace) -> socket.socket:
    if arguments.unix:
        made = socket.socket(socket.AF_UNIX)
        made.bind(arguments.unix)
    else:
        made = socket.create_server(("127.0.0.1", arguments.port), backlog=1024)
    made.listen(1024)
    made.set_inheritable(True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("digits", "types", "plain", "mlp"), default="digits")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix", help="path of a unix socket to serve on instead")
    parser.add_argument("--shared-memory", action="store_true", help="let clients register regions of shared memory")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory() as folder,
        listener(arguments) as bound,
        RunnerProcess(
            bundle(Path(folder) / "bundle", arguments.model), bound, shared_memory=arguments.shared_memory
        ) as runner,
    ):
        runner.serve()
        sys.stdout.write(f"{arguments.unix or runner.url} pid {runner.pid}\n")
        sys.stdout.flush()
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
