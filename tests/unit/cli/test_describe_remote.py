# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from skerry.cli.describe_remote import looks_remote
from skerry.wire.v1.operator import FleetView, RolloutDevice, RolloutEvent
from unit.cli.scripted import NOW, device, model, page, rollout


@pytest.mark.parametrize(
    ("words", "remote"),
    [
        (["device/press-1"], True),
        (["device", "press-1"], True),
        (["model/body-shop/weld:1"], True),
        (["weld.skb"], False),
        (["build/weld.skb"], False),
        (["devices"], False),
        ([], False),
    ],
)
def test_files_and_things_are_told_apart(words, remote):
    assert looks_remote(words) is remote


def test_a_device(shell):
    worried = device(issues=("clock",), labels={"line": "a", "cell": "3"})
    shell.hub.on("GET", "/api/v1/devices/press-1", worried)
    out = shell("describe device press-1").out
    assert "Status:      online" in out
    assert "Labels:      cell=3,line=a" in out
    assert "Issues:      clock" in out
    row = next(line for line in out.splitlines() if line.strip().startswith("weld "))
    assert row.split() == ["weld", "weld-defect:1.5.1", "committed", "int8", "1.50", "3.25", "0.0%", "1m", "ago"]
    assert json.loads(shell("describe device/press-1 -o json").out)["issues"] == ["clock"]


def test_a_device_with_nothing_to_run(shell):
    shell.hub.on("GET", "/api/v1/devices/press-1", device(workloads=()))
    assert "Workloads: none yet" in shell("describe device press-1").out


def test_a_fleet_lists_its_members(shell):
    shell.hub.on("GET", "/api/v1/fleets/body", FleetView(name="body", selector={"line": "b"}, devices=1))
    shell.hub.on("GET", "/api/v1/devices", page(device()))
    assert "press-1  online" in shell("describe fleet/body").out


def test_a_model_without_a_version_is_its_newest_release(shell):
    newer = model("1.6.0")
    newest = type(newer.bundle)(**{**_facts(newer.bundle), "release_seq": 9})
    shell.hub.on("GET", "/api/v1/models", page(type(newer)(**{**_facts(newer), "bundle": newest}), model()))
    assert "weld-defect:1.6.0" in shell("describe model weld-defect").out


def _facts(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_a_rollout_with_its_devices_and_events(shell):
    devices = (RolloutDevice(device_id="d", name="press-1", stage=0, state="failed", reason="silent"),)
    shell.hub.on("GET", "/api/v1/rollouts/r1", rollout(devices=devices))
    event = RolloutEvent(n=1, at=NOW, kind="started", detail="by anna")
    shell.hub.on("GET", "/api/v1/rollouts/r1/events", page(event))
    out = shell("describe rollout/r1").out
    assert "press-1  canary  failed  silent" in out
    assert "2027-01-15T08:00:00.000Z  started  by anna" in out


def test_what_cannot_be_described(shell):
    assert shell("describe user anna").code == 2
    assert shell("describe device nobody").code == 1
