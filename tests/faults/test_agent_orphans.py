# SPDX-License-Identifier: Apache-2.0
"""Runners of an agent that was killed serve what it last started. The next agent ends what is not wanted any more."""

from __future__ import annotations

import time

import pytest

from skerry.agent.supervise.orphans import find_orphans
from skerry.wire.v1.device import WorkloadSpec
from support.agent_process import Device
from support.mini_hub import MiniHub
from support.victim import Owner

pytestmark = pytest.mark.slow


@pytest.fixture
def setting(tmp_path):
    owner = Owner(now=time.time())
    hub = MiniHub(owner)
    device = Device(tmp_path, hub)
    yield owner, hub, device
    device.close()
    hub.stop()


def soaking(device: Device, hub: MiniHub, ref) -> None:
    hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=60))
    device.until("soak", lambda: hub.states(ref)[-1:] == ["soaking"])


def digests(device: Device) -> list[str]:
    found = find_orphans(device.state)
    for orphan in found:
        orphan.close()
    return [orphan.digest for orphan in found]


def test_first_version_killed_in_its_soak_and_no_longer_wanted_serves_no_more(setting):
    owner, hub, device = setting
    ref = owner.release("1.0.0", 1)
    device.start()
    soaking(device, hub, ref)
    device.kill()
    assert digests(device) == [ref.digest]
    hub.assign()
    device.start()
    device.until("undo", lambda: hub.states(ref)[-1] == "undone")
    assert digests(device) == []


def test_version_killed_in_its_soak_gives_way_to_the_committed_one(setting):
    owner, hub, device = setting
    v1, v2 = owner.release("1.0.0", 1), owner.release("2.0.0", 2)
    hub.assign(WorkloadSpec(name="eye", bundle=v1, soak_seconds=0.1))
    device.start()
    device.until("commit", lambda: "committed" in hub.states(v1))
    soaking(device, hub, v2)
    device.kill()
    device.until("end of what was kept warm", lambda: digests(device) == [v2.digest])
    hub.assign(WorkloadSpec(name="eye", bundle=v1))
    device.start()
    device.until("undo", lambda: hub.states(v2)[-1] == "undone")
    device.until("serving v1", lambda: device.bundle() == v1.name)
    device.until("end of v2", lambda: digests(device) == [v1.digest])


def test_workload_whose_record_holds_nothing_keeps_no_runner(setting):
    """As left behind by a kill at the very end of a removal or an undo."""
    owner, hub, device = setting
    ref = owner.release("1.0.0", 1)
    hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=0.1))
    device.start()
    device.until("commit", lambda: "committed" in hub.states(ref))
    device.kill()
    hub.stop()
    (device.state / "workloads" / "eye.json").write_text('{"name":"eye","revision":99}')
    device.start()
    device.until("end of the runner", lambda: digests(device) == [])
