# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a real agent process at random instants of updates: never a half-installed bundle, never a wrong record."""

from __future__ import annotations

import random
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from skerry.agent.main import status
from skerry.errors import SkerryError
from skerry.trust.chain import Intact, verify_chain
from skerry.wire.v1.device import WorkloadSpec
from support.agent_process import Device
from support.mini_hub import DEVICE, MiniHub
from support.victim import Owner


@pytest.fixture
def setting(tmp_path):
    owner = Owner(now=time.time())
    hub = MiniHub(owner)
    device = Device(tmp_path, hub)
    yield owner, hub, device
    device.close()
    hub.stop()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_agent_leaves_old_or_new_and_finishes(setting):
    owner, hub, device = setting
    dice, pause = random.Random(20261120), threading.Event()
    kills = 0
    for number in range(1, 6):
        ref = owner.release(f"{number}.0.0", number)
        hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=0.3))
        for _ in range(5):
            device.start()
            pause.wait(dice.uniform(0.05, 2.2))
            device.kill()
            kills += 1
            assert device.half_installed() == []
        device.start()
        device.until(f"commit of {ref.name}", lambda ref=ref: "committed" in hub.states(ref), 40)
        device.until(f"serving {ref.name}", lambda ref=ref: device.bundle() == ref.name)
        assert device.ask().split()[0] == ref.name
        assert hub.states(ref).count("committed") == 1
        assert "undone" not in hub.states(ref)
        device.stop()
    assert kills == 25
    intact = verify_chain(hub.history(), device_id=DEVICE, public_key=hub.public_key)
    assert isinstance(intact, Intact)
    commits = [entry.fields["bundle"] for entry in hub.history() if entry.kind == "committed"]
    assert commits == [f"digits:{number}.0.0" for number in range(1, 6)]
    sequences = sorted(hub.reports)
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.slow
def test_runner_of_a_killed_agent_serves_on_and_is_replaced_without_a_gap(setting):
    owner, hub, device = setting
    ref = owner.release("1.0.0", 1)
    hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=0.1))
    device.start()
    device.until("commit", lambda: "committed" in hub.states(ref))
    device.until("status", lambda: device.bundle() == ref.name)
    old = device.ask().split()[1]
    device.kill()
    assert device.ask().split()[1] == old
    answers: list[str] = []
    problems: list[Exception] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                answers.append(device.ask().split()[1])
            except (OSError, StopIteration, SkerryError) as error:
                problems.append(error)

    url = status(device.state).workloads[0].url
    device.ask = lambda: urllib.request.urlopen(url, timeout=5).read().decode()
    client = threading.Thread(target=load)
    client.start()
    device.start()
    device.until("new runner", lambda: bool(answers) and answers[-1] != old)
    device.until("end of the old runner", lambda: not Path(f"/proc/{old}").exists())
    done.set()
    client.join()
    assert problems == []
    assert set(answers[-3:]) != {old}
