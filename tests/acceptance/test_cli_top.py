# SPDX-License-Identifier: Apache-2.0
"""`skerry top` on real runners: once, as JSON, and on a terminal until q."""

import json
import os
import pty
import select
import subprocess
import termios
import threading
import time

import numpy as np
import pytest

from acceptance.cli_harness import SKERRY, Cli, stop
from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine
from skerry.agent.state import Layout
from skerry.agent.status import Status, WorkloadStatus, write_status
from skerry.client import Client
from skerry.effects.disk import DiskFiles

pytestmark = pytest.mark.slow
X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
def runner(tmp_path):
    bundle = write_bundle(tmp_path / "b", affine(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener, probe_seconds=0) as runner:
        yield runner.serve()


@pytest.fixture
def busy(runner):
    """Somebody asks without a pause."""
    stop = threading.Event()

    def ask():
        with Client(f"http://{runner.url}") as client:
            while not stop.is_set():
                client.infer("digits", {"x": X})

    thread = threading.Thread(target=ask)
    thread.start()
    yield runner
    stop.set()
    thread.join(10)


def test_a_server_without_an_agent(busy, tmp_path):
    ran = Cli(tmp_path / "home").run("top", "--url", f"http://{busy.url}", "--once", "--interval", "500ms")
    header, line = ran.stdout.splitlines()
    values = dict(
        zip(
            header.replace(" MS", "").replace("CPU %", "CPU").split(),
            line.replace(" MiB", "M").split(),
            strict=True,
        )
    )
    assert (values["WORKLOAD"], values["STATE"], values["MODEL"]) == (busy.url, "serving", "digits:1.0.0")
    assert float(values["P50"]) > 0
    assert float(values["CPU"]) > 1
    assert values["RSS"].endswith("M")
    assert values["BAD/S"] == "0"


def test_programs_get_an_object_a_look(busy, tmp_path):
    top = Cli(tmp_path / "home").start(
        "top", "--url", f"http://{busy.url}", "--json", "--interval", "200ms", log=tmp_path / "log"
    )
    assert top.stdout is not None
    try:
        looks = [json.loads(top.stdout.readline()) for _ in range(2)]
    finally:
        stop(top)
    assert looks[0]["at"] < looks[1]["at"]
    (model,) = looks[1]["models"]
    assert model["requests_per_second"] > 10
    assert 0 < model["p50_ms"] <= model["p95_ms"] <= model["p99_ms"]
    assert model["rss_mib"] > 10


def test_the_workloads_of_an_agent(runner, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    workloads = (
        WorkloadStatus(name="scan", state="serving", bundle="digits:1.0.0", url=f"http://{runner.url}"),
        WorkloadStatus(name="weld", state="down", committed="weld-defect:2.0.0", problem="it ended with SIGSEGV"),
    )
    status = Status(
        pid=1, device_id="d", name="press-1", hub="http://h", at=0.0, workloads=workloads, issues=("disk is full",)
    )
    write_status(DiskFiles(), Layout(state), status)
    ran = Cli(tmp_path / "home").run("top", "--state", state, "--once", "--interval", "100ms")
    lines = ran.stdout.splitlines()
    assert lines[1].split()[:3] == ["scan", "serving", "digits:1.0.0"]
    assert lines[2].split()[:3] == ["weld", "down", "weld-defect:2.0.0"]
    assert "it ended with SIGSEGV" in ran.stderr
    assert "disk is full" in ran.stderr
    assert Cli(tmp_path / "home").run("top", "--state", tmp_path / "none", "--once", expect=None).returncode == 1


@pytest.mark.timeout(180)
def test_on_a_terminal_it_shows_until_q_and_leaves_the_terminal_as_it_was(busy, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (20, 120))
    before = termios.tcgetattr(theirs)
    environ = {**os.environ, "TERM": "xterm-256color", "HOME": str(tmp_path)}
    environ.pop("NO_COLOR", None)
    command = [*SKERRY, "top", "--url", f"http://{busy.url}", "--interval", "200ms"]
    top = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    try:
        shown = _until(ours, "digits:1.0.0")
        assert "q quits" in shown
        assert "\x1b[?1049h" in shown  # the terminal's other screen: what was there before comes back
        os.write(ours, b"q")
        left = _until(ours, "\x1b[?1049l")
        assert "Traceback" not in left
        assert top.wait(10) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        top.kill()
        top.wait(10)
        os.close(ours)
        os.close(theirs)


def _until(terminal, text, seconds=50.0):
    """What came from the terminal up to `text`."""
    seen, end = "", time.monotonic() + seconds
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, seen
        seen += os.read(terminal, 65536).decode("utf-8", "replace")
    return seen
