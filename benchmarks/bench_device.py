# SPDX-License-Identifier: Apache-2.0
"""What a device pays: installed size, memory of an idle agent and of a runner with a 1 MB model, each against a floor.

Measured in a bare environment (base + ort), which is made on the first run. Floors: an interpreter that imported what any
update client needs (urllib3, cryptography, tuf), and one that holds the same model in a bare onnxruntime session.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from architecture.bare import bare_python, distributions, rss_mib
from support.models import linear_classifier

CLIENT_FLOOR = "import urllib3, cryptography.hazmat.primitives.asymmetric.ed25519, tuf.ngclient, sqlite3"
ENGINE_FLOOR = """
import os, sys; os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
options = onnxruntime.SessionOptions(); options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
"""
HOLD = "\nprint('held', flush=True); input()"


def held_rss(python: Path, code: str, *arguments: str) -> float:
    process = subprocess.Popen([python, "-c", code + HOLD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    rss = rss_mib(process.pid)
    process.communicate(b"\n", timeout=20)
    return rss


def runner_rss(python: Path, folder: Path) -> tuple[float, float]:
    """(our runner, a bare session) with the same 1 MB model."""
    model = linear_classifier(inputs=64, hidden=3500)
    (folder / "model.onnx").write_bytes(model)
    bundle = write_bundle(folder / "bundle", model, {"x": np.ones((4, 64), np.float32)})
    environment = {"MALLOC_ARENA_MAX": "1", "PYTHONPATH": ""}
    with listen() as listener, RunnerProcess(bundle, listener, python=str(python), env=environment).serve() as runner:
        ours = rss_mib(runner.pid)
    return ours, held_rss(python, ENGINE_FLOOR, str(folder / "model.onnx"))


def main() -> int:
    python = bare_python()
    sizes = distributions(python)
    own = sizes["skerry"]
    total = sum(sizes.values())
    print(f"installed: {len(sizes)} distributions, {total / 2**20:.0f} MiB, of which skerry {own / 2**20:.1f} MiB")
    agent = held_rss(python, "import skerry.agent.main, skerry.agent.app")
    floor = held_rss(python, CLIENT_FLOOR)
    print(f"agent, imported: {agent:.1f} MiB, floor {floor:.1f} MiB, {agent / floor:.2f} x")
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = runner_rss(python, Path(folder))
    print(f"runner with a 1 MB model: {ours:.1f} MiB, bare session {bare:.1f} MiB, {ours / bare:.2f} x")
    print("a real idle agent and runner are held to their budgets by tests/architecture/test_device_closure.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
