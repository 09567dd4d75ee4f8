# SPDX-License-Identifier: Apache-2.0
"""From a model file to a governed device and back out of trouble, by the command line alone: real hub, agent and runner."""

import json
import threading

import numpy as np
import pytest

from acceptance.cli_harness import RunningHub, stop
from support.projects import write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Site:
    """A hub with one device, and two releases of one model."""

    def __init__(self, folder):
        self.hub = RunningHub(folder / "hub")
        self.cli = self.hub.cli
        self.state = folder / "device"
        token = self.cli.run("enroll-token", "-l", "site=north").stdout.strip()
        self.cli.run("agent", "join", "--hub", self.hub.url, "--token", token, "--name", "pi-1", "--state", self.state)
        self._agent = self.cli.start("agent", "run", "--state", self.state, "--poll", "1s", log=folder / "agent.log")
        self.archives = [self._pack(folder, number) for number in (1, 2)]
        self.key = self.hub.keys / "line-plants.pem"

    def _pack(self, folder, number):
        samples = np.random.default_rng(number).normal(size=(12, 4)).astype(np.float32)
        project = write_project(folder / f"project-{number}", samples=samples)
        manifest = project / "skerry.yaml"
        text = manifest.read_text().replace('version: "1.0.0"', f'version: "1.{number}.0"')
        manifest.write_text(text.replace("release_seq: 2", f"release_seq: {number}"))
        archive = folder / f"iris-{number}.skb"
        self.cli.run("pack", project, "-o", archive)
        return archive

    def running(self):
        (workload,) = self.cli.json("get", "device/pi-1")["workloads"]
        return workload["bundle"], workload["state"]

    def wait_for(self, what, check):
        for _ in range(200):
            if check():
                return
            threading.Event().wait(0.1)
        raise AssertionError(what)

    def close(self):
        stop(self._agent)
        self.hub.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    opened = Site(tmp_path_factory.mktemp("site"))
    yield opened
    opened.close()


def test_the_whole_loop(site):
    """One story, in order: publish, deploy, watch, break, be undone, audit."""
    cli = site.cli
    first, second = site.archives

    said = cli.run("push", first, "--key", site.key, "--dry-run").stdout
    assert "would publish plants/iris:1.1.0" in said
    assert cli.json("get", "models") == []
    cli.run("push", first, "--key", site.key)
    assert "already published" in cli.run("push", first, "--key", site.key).stdout
    assert [model["bundle"]["version"] for model in cli.json("get", "models")] == ["1.1.0"]

    cli.run("fleet", "set", "north", "-l", "site=north")
    words = ["--workload", "iris", "--fleet", "north", "--soak", "1s", "--deadline", "40s"]
    plan = cli.run("deploy", "iris:1.1.0", *words, "--canary", "1", "--dry-run").stdout
    assert "1 device(s) match now" in plan
    assert cli.json("get", "rollouts") == []
    deployed = cli.run("deploy", "plants/iris:1.1.0", *words, "--canary", "1", "--watch", "--timeout", "45s")
    assert deployed.stdout.isascii()
    assert "1/1 committed" in deployed.stdout
    assert site.running() == ("iris:1.1.0", "committed")

    cli.run("push", second, "--key", site.key)
    strict = [*words, "--gate", "latency_p95_ms<=0.000001", "--watch", "--timeout", "45s"]
    undone = cli.run("deploy", "iris:1.2.0", *strict, expect=3)
    assert "FAILED" in undone.stdout
    assert undone.stderr.startswith("error SKY-7003: ")
    site.wait_for("the device is back", lambda: site.running() == ("iris:1.1.0", "committed"))
    rollout = cli.json("rollout", "status")
    assert rollout["status"] == "undone"
    assert "SKY-5007" in cli.run("rollout", "resume", rollout["id"], expect=1).stderr
    assert rollout["id"] in cli.run("describe", "rollout", rollout["id"]).stdout

    status = cli.json("agent", "status", "--state", site.state)
    assert status["running"] is True
    assert cli.json("doctor", "--state", site.state)
    assert "iris: committed" in cli.run("logs", "pi-1").stdout

    exported = site.state.parent / "pi-1.json"
    audit = cli.run("audit", "pi-1", "--export", exported)
    assert "intact" in audit.stderr
    history = json.loads(exported.read_text())
    committed = [entry["fields"]["bundle"] for entry in history["entries"] if entry["kind"] == "committed"]
    assert committed == ["iris:1.1.0", "iris:1.2.0", "iris:1.1.0"]
    history["entries"][1]["kind"] = "nothing-happened"
    exported.write_text(json.dumps(history))
    assert "SKY-2006" in cli.run("audit", "--from", exported, expect=1).stderr


def test_a_device_that_was_revoked_gets_nothing_any_more(site):
    token = site.cli.run("enroll-token").stdout.strip()
    state = site.state.parent / "stolen"
    site.cli.run("agent", "join", "--hub", site.hub.url, "--token", token, "--name", "stolen", "--state", state)
    again = site.cli.run(
        "agent", "join", "--hub", site.hub.url, "--token", token, "--state", site.state.parent / "again", expect=1
    )
    assert "SKY-5006" in again.stderr
    site.cli.run("revoke", "device/stolen", "--yes")
    assert "revoked" in site.cli.run("get", "device", "stolen").stdout
    site.cli.run("agent", "run", "--state", state, "--once", expect=None)
    assert site.cli.json("get", "device/stolen")["workloads"] == []
