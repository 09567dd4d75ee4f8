# SPDX-License-Identifier: Apache-2.0
"""Native code that crashes ends one runner: the agent tells why and starts it again, and another workload never notices."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import write_bundle
from contracts.engine.models import classifier
from skerry.agent.supervise.process import Surroundings, Timing
from skerry.agent.supervise.slot import Outlets
from skerry.agent.supervise.supervisor import Supervisor
from skerry.agent.update.contract import Launch
from skerry.bundle.digest import digest_of
from skerry.effects.system import SystemClock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
COMMAND = (sys.executable, str(Path(__file__).parents[1] / "support" / "poisoned_runner.py"))
POISON = 666


@pytest.fixture(params=["SIGSEGV", "SIGABRT"])
def supervisor(request, tmp_path, monkeypatch):
    if request.param == "SIGABRT":
        monkeypatch.setenv("TMPDIR", "abort")  # one of the few variables an agent hands on
    made = Supervisor(
        Surroundings(
            state=tmp_path / "state",
            logs=tmp_path / "logs",
            command=COMMAND,
            timing=Timing(start=60, serve=20, linger=0.2, end=5, figures=0.2, probe=0.2),
        ),
        Outlets(result=lambda *_: None, figures=lambda *_: None, changed=lambda: None),
        SystemClock(),
    )
    for workload in ("eye", "ear"):
        folder = write_bundle(tmp_path / workload, classifier(), {"x": np.ones((2, 4), np.float32)})
        digest = digest_of((folder / "skerry.json").read_bytes() + workload.encode())
        made.stage(Launch(workload=workload, digest=digest, bundle_dir=str(folder), variant="fp32"))
        made.promote(workload)
    over = threading.Event()
    loops = [threading.Thread(target=repeat, args=(over, act)) for act in (made.tend, made.keep)]
    for loop in loops:
        loop.start()
    yield request.param, made, tmp_path
    over.set()
    made.close()
    for loop in loops:
        loop.join(20)


def repeat(over, act):
    while not over.is_set():
        act(0.05)


def ask(supervisor, workload, value=1):
    connection = http.client.HTTPConnection("127.0.0.1", supervisor.port(workload), timeout=20)
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value] * 4}]}
    try:
        connection.request("POST", "/v2/models/digits/infer", json.dumps(body))
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def test_a_crash_in_native_code_ends_one_runner_and_is_mended(supervisor):
    name, agent, folder = supervisor
    neighbours: list[int] = []
    over = threading.Event()

    def keep_asking():
        while not over.is_set():
            neighbours.append(ask(agent, "ear"))

    neighbour = threading.Thread(target=keep_asking)
    neighbour.start()
    try:
        assert ask(agent, "eye") == 200
        assert ask(agent, "eye", POISON) in {0, 503}
        end, problem = time.monotonic() + 60, ""
        while not problem:
            assert time.monotonic() < end
            over.wait(0.01)
            problem = agent.problem("eye")
        while ask(agent, "eye") != 200:
            assert time.monotonic() < end, (folder / "logs" / "eye.log").read_text()
    finally:
        over.set()
        neighbour.join(20)
    assert name in problem
    assert set(neighbours) == {200}
    assert not list(folder.rglob("core*"))
