# SPDX-License-Identifier: Apache-2.0
"""The operator's verbs against a real hub."""

import json
import stat
import subprocess

import pytest

from acceptance.cli_harness import SKERRY, Cli, RunningHub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    running = RunningHub(tmp_path_factory.mktemp("hub"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def admin(hub):
    return hub.cli


def user(hub, tmp_path, name, role):
    token = hub.cli.json("user", "add", name, "--role", role)["token"]
    return Cli(tmp_path / name, SKERRY_HUB=hub.url, SKERRY_TOKEN=token)


def test_the_first_start_leaves_a_login_for_the_owner_alone(hub, admin):
    path = admin.home / ".config" / "skerry" / "config.json"
    assert hub.greeting["remembered"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert hub.greeting["admin_token"] in path.read_text()


def test_demo_trust_is_loud(hub):
    assert "DEMO TRUST" in hub.log.read_text()


def test_an_empty_hub_says_what_to_do_next(admin):
    for kind, advice in {
        "devices": "skerry enroll-token",
        "models": "skerry push",
        "rollouts": "skerry deploy",
    }.items():
        ran = admin.run("get", kind)
        assert ran.stdout == ""
        assert advice in ran.stderr
        assert admin.json("get", kind) == []


def test_fleets(admin):
    admin.run("fleet", "set", "greenhouse", "-l", "site=north", "--dry-run")
    assert "fleet/greenhouse" not in admin.run("get", "fleets", "-o", "name").stdout
    admin.run("fleet", "set", "greenhouse", "-l", "site=north")
    assert admin.json("get", "fleet/greenhouse") == {"name": "greenhouse", "selector": {"site": "north"}, "devices": 0}
    assert "  selector:\n    site: north\n" in admin.run("get", "fleets", "-o", "yaml").stdout
    assert "there is no fleet nowhere" in admin.run("get", "fleet", "nowhere", expect=1).stderr


def test_a_viewer_reads_and_nothing_more(hub, tmp_path):
    viewer = user(hub, tmp_path, "vera", "viewer")
    viewer.run("get", "devices")
    ran = viewer.run("fleet", "set", "x", "--all", expect=1)
    assert ran.stderr.startswith("error SKY-5003: ")
    assert "hint: " in ran.stderr
    error = json.loads(viewer.run("enroll-token", "-o", "json", expect=1).stderr)
    assert error["code"] == "SKY-5003"


def test_a_user_who_was_deleted_gets_in_no_more(hub, tmp_path):
    guest = user(hub, tmp_path, "guest", "viewer")
    guest.run("get", "fleets")
    hub.cli.run("delete", "user", "guest", expect=2)
    hub.cli.run("delete", "user", "guest", "--yes")
    assert "SKY-5002" in guest.run("get", "fleets", expect=1).stderr


def test_login_with_a_token_from_a_pipe(hub, tmp_path):
    someone = Cli(tmp_path / "someone")
    assert "SKY-7008" in someone.run("get", "fleets", expect=2).stderr
    assert "SKY-5002" in someone.run("login", hub.url, "--token", "wrong", expect=1).stderr
    ran = someone.run("login", hub.url, "--token", "-", stdin=hub.greeting["admin_token"] + "\n")
    assert "demo keys" in ran.stderr
    someone.run("get", "fleets")


def test_everything_that_was_changed_is_in_the_log(hub, admin, tmp_path):
    operator = user(hub, tmp_path, "otto", "operator")
    operator.run("fleet", "set", "logged", "--all")
    assert any(entry["actor"] == "otto" and "logged" in entry["subject"] for entry in admin.json("audit", "hub"))


def test_doctor_finds_the_hub_in_order(admin):
    verdicts = {finding["check"]: finding["verdict"] for finding in admin.json("doctor")}
    assert (verdicts["hub"], verdicts["token"], verdicts["hub clock"]) == ("ok", "ok", "ok")


def test_a_hub_that_is_not_there(tmp_path):
    nobody = Cli(tmp_path / "nobody", SKERRY_HUB="http://127.0.0.1:9", SKERRY_TOKEN="x")
    ran = nobody.run("get", "devices", expect=1)
    assert ran.stderr.startswith("error SKY-3001: cannot reach http://127.0.0.1:9")
    assert "skerry up" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Traceback" in nobody.run("get", "devices", "--debug", expect=1).stderr


def test_plain_http_leaves_this_machine_never(tmp_path):
    someone = Cli(tmp_path / "someone", SKERRY_HUB="http://hub.example", SKERRY_TOKEN="x")
    assert "SKY-3005" in someone.run("get", "devices", expect=1).stderr


def test_a_hub_restarted_keeps_its_word(tmp_path):
    hub = RunningHub(tmp_path)
    hub.cli.run("fleet", "set", "kept", "--all")
    assert hub.stop() == 0
    hub.restart()
    try:
        assert hub.greeting["admin_token"] is None
        assert hub.cli.json("get", "fleet/kept")["name"] == "kept"
    finally:
        hub.stop()


@pytest.mark.parametrize("arguments", [["--help"], ["deploy", "--help"], ["doctor"]])
def test_a_reader_that_goes_away_is_no_error(hub, admin, arguments):
    process = subprocess.Popen(
        [*SKERRY, *arguments], env=admin.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 141
    assert said == ""
