# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a real agent process at random instants of updates: never a half-installed bundle, never a wrong record."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from skerry.agent.join import JoinRequest
from skerry.agent.main import join, status
from skerry.agent.supervise.orphans import find_orphans
from skerry.bundle.digest import digest_of
from skerry.errors import SkerryError
from skerry.trust.chain import Intact, verify_chain
from skerry.wire.v1.device import BundleRef, WorkloadSpec
from support.mini_hub import DEVICE, MiniHub
from support.victim import Owner

SUPPORT = Path(__file__).parents[1] / "support"
RUN = """
import sys
from pathlib import Path
from skerry.agent.config import AgentConfig
from skerry.agent.main import run
from skerry.agent.supervise.process import Timing
timing = Timing(start=20, serve=10, linger=0.3, end=3, figures=0.1, probe=0.1)
sys.exit(run(AgentConfig(state=Path(sys.argv[1]), poll=0.2, figures=0.2, runner_command=(sys.executable, sys.argv[2]), timing=timing)))
"""


class Device:
    def __init__(self, folder: Path, hub: MiniHub) -> None:
        self.state = folder / "state"
        self.log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        join(self.state, JoinRequest(hub=hub.url, token="one-time", name="killed"))

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", RUN, str(self.state), str(SUPPORT / "fake_runner.py")]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    @property
    def live(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def kill(self) -> None:
        self.live.kill()
        self.live.wait(10)

    def stop(self) -> None:
        self.live.send_signal(signal.SIGTERM)
        assert self.live.wait(30) == 0, self.log.read_text()[-3000:]

    def ask(self) -> str:
        work = next(work for work in status(self.state).workloads if work.name == "eye")
        with urllib.request.urlopen(work.url, timeout=5) as reply:
            return str(reply.read().decode())

    def bundle(self) -> str:
        """What this very agent, not one killed before it, says it serves."""
        told = status(self.state)
        return next((work.bundle for work in told.workloads if work.url and told.pid == self.live.pid), "")

    def half_installed(self) -> list[str]:
        """Visible blobs and bundles that are not whole."""
        blobs = [blob for blob in (self.state / "blobs").rglob("*") if blob.is_file() and not blob.name.startswith(".")]
        wrong = [blob.name for blob in blobs if digest_of(blob.read_bytes()) != f"sha256:{blob.name}"]
        for marker in (self.state / "bundles").glob("*.json"):
            wrong += [marker.name for _ in () if not (self.state / "bundles" / marker.stem / "skerry.json").exists()]
        return wrong


def wait(event: threading.Event, check, seconds: float, what: str, log: Path) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"{what}\n{log.read_text()[-4000:]}"
        event.wait(0.02)


@pytest.fixture
def setting(tmp_path):
    owner = Owner(now=time.time())
    hub = MiniHub(owner)
    device = Device(tmp_path, hub)
    yield owner, hub, device
    if device.process is not None and device.process.poll() is None:
        device.stop()
    for orphan in find_orphans(device.state):  # of a test that failed half-way
        orphan.end(patience=1)
    hub.stop()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_agent_leaves_old_or_new_and_finishes(setting):
    owner, hub, device = setting
    dice, pause = random.Random(20261120), threading.Event()
    previous: BundleRef | None = None
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
        wait(pause, lambda ref=ref: "committed" in hub.states(ref), 40, f"commit of {ref.name}", device.log)
        wait(pause, lambda ref=ref: device.bundle() == ref.name, 20, f"serving {ref.name}", device.log)
        assert device.ask().split()[0] == ref.name
        assert hub.states(ref).count("committed") == 1
        assert "undone" not in hub.states(ref)
        device.stop()
        previous = ref
    assert previous is not None
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
    pause = threading.Event()
    ref = owner.release("1.0.0", 1)
    hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=0.1))
    device.start()
    wait(pause, lambda: "committed" in hub.states(ref), 20, "commit", device.log)
    wait(pause, lambda: status(device.state).workloads[0].url != "", 10, "status", device.log)
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
    wait(pause, lambda: bool(answers) and answers[-1] != old, 20, "new runner", device.log)
    wait(pause, lambda: not Path(f"/proc/{old}").exists(), 20, "end of the old runner", device.log)
    done.set()
    client.join()
    assert problems == []
    assert set(answers[-3:]) != {old}
