# SPDX-License-Identifier: Apache-2.0
"""A thread of the agent dies or hangs: whoever supervises the agent learns of it, and no model stops serving."""

from __future__ import annotations

import socket
import time

import pytest

from skerry.wire.v1.device import WorkloadSpec
from support.agent_process import Device
from support.mini_hub import MiniHub
from support.victim import Owner

SABOTAGE = """
import threading
from skerry.agent import following, reporting, results, updating
from skerry.agent.supervise import supervisor
when = threading.Event()
threading.Timer({after}, when.set).start()
def sabotaged(turn):
    def round(*arguments):
        if when.is_set():
            {how}
        return turn(*arguments)
    return round
{cls}.{turn} = sabotaged({cls}.{turn})
"""
THREADS = {
    "updater": ("updating.Updater", "round"),
    "follower": ("following.Follower", "round"),
    "reporter": ("reporting.Reporter", "round"),
    "supervisor": ("supervisor.Supervisor", "tend"),
    "writer": ("results.ResultWriter", "round"),
}


@pytest.fixture
def device(tmp_path):
    owner = Owner(now=time.time())
    hub = MiniHub(owner)
    device = Device(tmp_path, hub)
    ref = owner.release("1.0.0", 1)
    hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=0.1))
    device.start()
    device.until("commit", lambda: "committed" in hub.states(ref))
    device.until("status", lambda: device.bundle() == ref.name)
    device.stop()
    yield device
    device.close()
    hub.stop()


def sabotage(thread: str, how: str) -> str:
    cls, turn = THREADS[thread]
    return SABOTAGE.format(cls=cls, turn=turn, how=how, after=2.5)


def ends_and_its_runner_serves_on(device: Device) -> str:
    """What the agent said at its end. The next agent takes the runner over."""
    device.until("serving", lambda: device.bundle() == "digits:1.0.0")
    runner = device.ask().split()[1]
    assert device.live.wait(20) == 1
    assert device.ask().split()[1] == runner
    said = device.log.read_text()
    device.start()
    device.until("a runner of the next agent", lambda: device.ask().split()[1] != runner)
    device.stop()
    return said


@pytest.mark.slow
@pytest.mark.parametrize("thread", ["follower", "reporter", "supervisor"])
def test_dead_thread_ends_the_agent_and_no_runner(device, thread):
    device.start(sabotage=sabotage(thread, "raise ZeroDivisionError"))
    said = ends_and_its_runner_serves_on(device)
    assert f"the agent ended by a defect: thread {thread} ended: ZeroDivisionError()" in said


@pytest.mark.slow
@pytest.mark.parametrize("thread", ["updater", "writer"])
def test_hanging_thread_ends_the_agent_and_no_runner(device, thread):
    device.start(sabotage=sabotage(thread, "threading.Event().wait()"))
    said = ends_and_its_runner_serves_on(device)
    assert f"the agent ended by a defect: thread {thread} showed no life for" in said


@pytest.mark.slow
def test_watchdog_is_fed_while_all_threads_live_and_not_after(device, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        hang = sabotage("writer", "threading.Event().wait()")
        device.start(sabotage=hang, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
        heard = [systemd.recv(4096)]
        began = last = time.monotonic()
        while device.live.poll() is None:
            systemd.settimeout(1.0)
            try:
                heard.append(systemd.recv(4096))
                last = time.monotonic()
            except TimeoutError:
                continue
    assert heard[0] == b"READY=1"
    assert heard.count(b"WATCHDOG=1") >= 3
    assert last - began < 2.5 + 2.2 + 1.5
    assert device.live.returncode == 1
