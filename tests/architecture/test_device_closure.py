# SPDX-License-Identifier: Apache-2.0
"""What a device loads and weighs, measured on a real agent and a real runner in a bare environment, against a committed budget.

A budget may only get tighter. A new module in the closure is a decision: it goes into device_budget.json with its reason in the commit.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from architecture.bare import ROOT, bare_python, distributions, import_ms, rss_mib, third_party
from skerry.wire.v1.operator import EnrolmentTokenRequest
from support.models import linear_classifier
from support.stack import Stack, start_stack, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
BUDGET = json.loads((Path(__file__).parent / "device_budget.json").read_text())
ONE_MIB = 1024 * 1024
FIGURES = ROOT / "build" / "device-figures.txt"


@pytest.fixture(scope="module")
def python():
    return bare_python()


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = start_stack(tmp_path_factory.mktemp("closure"))
    yield stack
    stack.close()


@pytest.fixture(scope="module", autouse=True)
def figures():
    """What was measured, for `make check` to print: pytest swallows what a passing test says."""
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text("")


def report(title: str, **figures: object) -> None:
    with FIGURES.open("a") as file:
        file.write(f"device budget: {title}: " + ", ".join(f"{name} {value}" for name, value in figures.items()) + "\n")


def test_distributions_and_size(python):
    sizes = distributions(python)
    mib = sum(sizes.values()) / ONE_MIB
    report("installed", distributions=len(sizes), mib=f"{mib:.0f} of {BUDGET['installed_mib']}")
    assert len(sizes) <= BUDGET["distributions"], sorted(sizes)
    assert mib <= BUDGET["installed_mib"]


def test_import_times(python):
    agent, runner = import_ms(python, "skerry.agent.main"), import_ms(python, "skerry.runner.main")
    report(
        "import",
        agent_ms=f"{agent:.0f} of {BUDGET['agent']['import_ms']}",
        runner_ms=f"{runner:.0f} of {BUDGET['runner']['import_ms']}",
    )
    assert agent <= BUDGET["agent"]["import_ms"]
    assert runner <= BUDGET["runner"]["import_ms"]


def bare_environment(stack: Stack, **extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "LANG"}}
    return {**kept, "HOME": str(stack.folder / "home"), **extra}


def run_agent(python: Path, stack: Stack, name: str, **environment: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """Join and run the bare environment's own `skerry-agent`."""
    program = python.with_name("skerry-agent")
    state, log = stack.folder / name, stack.folder / f"{name}.log"
    token = stack.client().make_enrolment_token(EnrolmentTokenRequest()).token
    join = [program, "join", "--hub", stack.url, "--token", token, "--state", state, "--name", name]
    subprocess.run(
        [str(word) for word in join], env=bare_environment(stack), check=True, capture_output=True, timeout=60
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "run", "--state", state, "--poll", "1"], env=bare_environment(stack, **environment), stderr=output
        )
    wait_until("the agent's status", lambda: json_of(state / "status.json").get("hub_reachable") is True)
    return process, state, log


def json_of(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def test_an_idle_agent_is_small_and_loads_only_what_it_may(python, stack):
    process, _, _ = run_agent(python, stack, "idle")
    try:
        rss = rss_mib(process.pid)
    finally:
        process.terminate()
        process.wait(20)
    process, _, log = run_agent(python, stack, "traced", PYTHONPROFILEIMPORTTIME="1")
    process.terminate()
    process.wait(20)
    modules = third_party(python, log.read_text())
    report("agent", rss_mib=f"{rss:.1f} of {BUDGET['agent']['rss_mib']}", modules=len(modules))
    assert sorted(modules) == BUDGET["agent"]["modules"]
    assert rss <= BUDGET["agent"]["rss_mib"]


def test_a_runner_with_a_1_mb_model_is_small_and_loads_only_what_it_may(python, tmp_path):
    model = linear_classifier(inputs=64, hidden=3500)
    assert 0.9 < len(model) / 1e6 < 1.2
    inputs = {"x": np.ones((4, 64), np.float32)}
    bundle = write_bundle(tmp_path / "bundle", model, inputs)
    environment = {"MALLOC_ARENA_MAX": "1", "PYTHONPATH": ""}
    with listen() as listener, RunnerProcess(bundle, listener, python=python, env=environment).serve() as runner:
        rss = rss_mib(runner.pid)
    traced = {**environment, "PYTHONPROFILEIMPORTTIME": "1"}
    with listen() as listener, RunnerProcess(bundle, listener, python=python, env=traced).serve() as runner:
        runner.stop()
        modules = third_party(python, runner.stderr.decode())
    report("runner", rss_mib=f"{rss:.1f} of {BUDGET['runner']['rss_mib']}", modules=len(modules))
    assert sorted(modules) == BUDGET["runner"]["modules"]
    assert rss <= BUDGET["runner"]["rss_mib"]
