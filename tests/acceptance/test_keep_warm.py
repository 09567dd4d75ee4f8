# SPDX-License-Identifier: Apache-2.0
"""The version before, kept warm: real runners under a real supervisor, and clients that never stop asking."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import write_bundle
from acceptance.switch_load import Client
from contracts.engine.models import affine, classifier
from skerry.agent.supervise.doors import Ports
from skerry.agent.supervise.process import Surroundings, Timing
from skerry.agent.supervise.slot import Outlets
from skerry.agent.supervise.supervisor import Supervisor
from skerry.agent.update.contract import Launch
from skerry.bundle.digest import digest_of
from skerry.effects.system import SystemClock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

RETURNS = 5


def launch(folder: Path, version: str) -> Launch:
    digest = digest_of(version.encode())
    return Launch(workload="w", digest=digest, bundle_dir=str(folder), variant="fp32", bundle=f"digits:{version}")


def returned(supervisor: Supervisor, digest: str) -> float:
    """Seconds from the decision to the version before answering."""
    began = time.monotonic()
    assert supervisor.bring_back("w", digest)
    return time.monotonic() - began


def reloaded(supervisor: Supervisor, which: Launch) -> float:
    began = time.monotonic()
    supervisor.stage(which)
    supervisor.promote("w")
    return time.monotonic() - began


def test_going_back_to_what_is_warm_takes_no_time_and_drops_no_request(tmp_path, record_property):
    x = np.ones((2, 4), np.float32)
    first = launch(write_bundle(tmp_path / "a", affine(), {"x": x}), "1.0.0")
    second = launch(write_bundle(tmp_path / "b", classifier(), {"x": x}, version="2.0.0"), "2.0.0")
    supervisor = Supervisor(
        Surroundings(state=tmp_path, logs=tmp_path / "logs", timing=Timing(linger=0.5)),
        Outlets(result=lambda _, __: None, figures=lambda _: None, changed=lambda: None),
        SystemClock(),
        ports=Ports(run=tmp_path / "run"),
    )
    stop = threading.Event()
    warm: list[float] = []
    try:
        supervisor.stage(first)
        supervisor.promote("w")
        address = f"127.0.0.1:{supervisor.port('w')}"
        clients = [Client(address, stop, keep_alive=number % 2 == 0) for number in range(4)]
        for client in clients:
            client.start()
        for _ in range(RETURNS):
            supervisor.stage(second)
            supervisor.promote("w", keep_warm=True)
            supervisor.begin_soak("w")
            assert supervisor.warmth("w") == "the version before is kept warm"
            warm.append(returned(supervisor, first.digest))
            assert supervisor.serving("w") == first.digest
        cold = [reloaded(supervisor, which) for which in (second, first)]
        stop.set()
        for client in clients:
            client.join(30)
    finally:
        stop.set()
        supervisor.close()
    record_property("warm_ms", round(max(warm) * 1000, 1))
    record_property("loaded_again_ms", round(min(cold) * 1000))
    assert [problem for client in clients for problem in client.tally.problems] == []
    assert sum(client.tally.dropped for client in clients) == 0
    assert sum(client.tally.asked for client in clients) > 500
    assert max(warm) < min(cold)
