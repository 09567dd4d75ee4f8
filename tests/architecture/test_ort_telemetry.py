# SPDX-License-Identifier: Apache-2.0
"""The Linux wheel of onnxruntime reports to its maker unless ORT_DISABLE_TELEMETRY is set before the first import."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine

ROOT = Path(__file__).parents[2]
IMPORTERS = {"skerry.runtime.onnx", "skerry.runtime.quantize"}  # a device's engine, a build machine's quantiser
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
ENTRY_POINTS = sorted({"skerry.runner.__main__", *(target.split(":")[0] for target in SCRIPTS.values())})

# Stands before all finders: says what the variable was when onnxruntime was first looked for, before any of it ran.
WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("seen", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
"""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def without_the_variable(home):
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return {**env, "HOME": str(home)}


def run(code, home):
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code], env=without_the_variable(home), capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")


def importers(*folders):
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert files
    return {path for path in files if "onnxruntime" in imports(path)}


def test_only_two_files_import_onnxruntime():
    allowed = {ROOT / "src" / f"{module.replace('.', '/')}.py" for module in IMPORTERS}
    assert importers("src", "tests", "scripts", "conformance", "fuzz") == allowed


def test_benchmarks_that_measure_the_bare_engine_set_the_variable_first():
    for path in importers("benchmarks"):
        before = path.read_text().split("import onnxruntime")[0]
        assert 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in before, path


@pytest.mark.parametrize("module", sorted(IMPORTERS))
def test_they_set_the_variable_before_the_import(module, tmp_path):
    assert run(f"import {module}", tmp_path)[0] == "seen 1"


def test_the_watch_sees_an_import_without_the_variable(tmp_path):
    code = "import importlib.util; importlib.util.find_spec('onnxruntime')"
    assert run(code, tmp_path)[0] == "seen None"


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_no_entry_point_imports_onnxruntime_without_it(module, tmp_path):
    seen = [line for line in run(f"import {module}", tmp_path) if line.startswith("seen")]
    assert seen == []  # a runner imports the engine its variant needs, the CLI and the agent none at all


def test_a_runner_sets_it_before_it_knows_its_engine(tmp_path):
    code = "import os, skerry.runner.__main__; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(code, tmp_path)[0] == "1"


@pytest.mark.slow
def test_a_real_runner_leaves_no_trace_of_telemetry(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    bundle = write_bundle(tmp_path / "bundle", affine(), {"x": np.ones((1, 4), np.float32)})
    env = dict.fromkeys(("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"), "")
    with listen() as listener, RunnerProcess(bundle, listener, env={**env, "HOME": str(home)}) as runner:
        runner.serve()
        libraries = Path(f"/proc/{runner.pid}/maps").read_text()
        assert "onnxruntime" in libraries
        assert not (home / ".cache" / "Microsoft").exists()
    assert list(home.rglob("*")) == []
