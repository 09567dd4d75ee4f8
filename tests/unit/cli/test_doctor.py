# SPDX-License-Identifier: Apache-2.0
import json
import sqlite3
from email.utils import formatdate

import pytest

from skerry import errors
from skerry.agent.state import Device, Layout, save_device
from skerry.cli import findings
from skerry.cli.findings import Verdict
from skerry.effects.disk import DiskFiles
from skerry.wire.v1.operator import Summary
from unit.cli.scripted import NOW, Reply

SUMMARY = Summary(version="0.1.0", devices=5, online=4, models=1, rollouts_running=0, results=9)


@pytest.fixture
def healthy(shell):
    shell.hub.on("GET", "/healthz", Reply(headers={"date": formatdate(NOW, usegmt=True)}))
    shell.hub.on("GET", "/api/v1/summary", SUMMARY)
    return shell


@pytest.fixture
def state(tmp_path):
    layout = Layout(tmp_path / "state")
    save_device(DiskFiles(), layout, Device(device_id="d1", name="press-1", hub="https://h", audience="a"))
    layout.key.parent.mkdir()
    layout.key.write_bytes(b"key")
    layout.key.chmod(0o600)
    return layout


def verdicts(ran):
    return {finding["check"]: finding["verdict"] for finding in json.loads(ran.out)}


def test_all_is_well(healthy):
    ran = healthy("doctor -o json")
    assert ran.code == 0
    assert set(verdicts(ran).values()) == {"ok"}


def test_people_see_words_and_what_to_do(healthy):
    healthy.hub.on("GET", "/healthz", errors.HubUnreachable(url="http://hub", problem="refused"))
    ran = healthy("doctor")
    assert ran.code == 1
    assert "failed   hub" in ran.out
    assert "-> Is the hub running" in ran.out


def test_no_hub_chosen_is_only_a_warning(healthy):
    healthy.environ["SKERRY_HUB"] = ""
    ran = healthy("doctor -o json")
    assert ran.code == 0
    assert verdicts(ran)["hub"] == "warning"


def test_a_wrong_token_is_found(healthy):
    healthy.hub.on("GET", "/api/v1/summary", b"", status=401)
    ran = healthy("doctor -o json")
    assert ran.code == 1
    assert (verdicts(ran)["hub"], verdicts(ran)["token"]) == ("ok", "failed")


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0, Verdict.OK), (-20, Verdict.OK), (60, Verdict.WARNING), (-3600, Verdict.FAILED)]
)
def test_a_clock_apart_from_the_hub(gap, verdict):
    assert findings.clock_against(NOW + gap, formatdate(NOW, usegmt=True)).verdict is verdict


def test_a_clock_from_before_this_was_built():
    assert findings.clock(0.0).verdict is Verdict.FAILED
    assert findings.clock(NOW).verdict is Verdict.OK


def test_settings_open_to_others(healthy, tmp_path):
    path = tmp_path / ".config" / "skerry" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    path.chmod(0o644)
    assert verdicts(healthy("doctor -o json"))["settings"] == "warning"


def test_a_sound_state_folder(healthy, state):
    ran = healthy(f"doctor --state {state.root} -o json")
    assert ran.code == 0
    assert {"identity", "workloads", "floors", "outbox"} <= set(verdicts(ran))


def harm_identity(state):
    state.device.write_text("{")


def open_key(state):
    state.key.chmod(0o644)


def lose_key(state):
    state.key.unlink()


def harm_outbox(state):
    state.outbox.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)


def harm_workload(state):
    state.workloads.mkdir()
    (state.workloads / "weld.json").write_text("[]")


def harm_floors(state):
    state.floors.write_text("{")


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        (harm_identity, "identity"),
        (open_key, "identity"),
        (lose_key, "identity"),
        (harm_outbox, "outbox"),
        (harm_workload, "workloads"),
        (harm_floors, "floors"),
    ],
)
def test_harm_in_the_state_folder_is_found_and_named(healthy, state, harm, check):
    harm(state)
    ran = healthy(f"doctor --state {state.root} -o json")
    assert ran.code == 1
    assert {name for name, verdict in verdicts(ran).items() if verdict == "failed"} == {check}


def test_a_folder_that_is_no_state_folder(healthy, tmp_path):
    ran = healthy(f"doctor --state {tmp_path / 'empty'} -o json")
    assert ran.code == 1
    assert verdicts(ran)["identity"] == "failed"


def test_an_outbox_in_use_can_be_looked_at(healthy, state):
    writer = sqlite3.connect(state.outbox)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    writer.execute("BEGIN IMMEDIATE")
    assert healthy(f"doctor --state {state.root} -o json").code == 0
    writer.close()


def test_looking_changes_nothing(healthy, state):
    with sqlite3.connect(state.outbox) as database:
        database.execute("CREATE TABLE t (a)")
    database.close()
    before = {path: path.read_bytes() for path in state.root.rglob("*") if path.is_file()}
    healthy(f"doctor --state {state.root}")
    assert {path: path.read_bytes() for path in state.root.rglob("*") if path.is_file()} == before
