# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.agent import main as agent
from skerry.agent.state import Device, Layout, save_device
from skerry.agent.status import Status, WorkloadStatus
from skerry.cli.agent import status_lines
from skerry.effects.disk import DiskFiles
from skerry.wire.v1.device import Capabilities


def test_join_dry_run_makes_no_key(shell, tmp_path):
    ran = shell(f"agent join --hub https://h --token t --name press-1 --state {tmp_path / 's'} --dry-run")
    assert ran.code == 0
    assert "as press-1 at https://h" in ran.out
    assert not (tmp_path / "s").exists()


def test_status_of_a_folder_without_a_device_says_how_to_join(shell, tmp_path):
    ran = shell(f"agent status --state {tmp_path}")
    assert ran.code == 1
    assert "skerry agent join" in ran.err


def test_a_device_that_joined_and_never_ran_is_no_stranger(shell, tmp_path):
    device = Device(device_id="d1", name="press-1", hub="https://h", audience="a", joined=1.0)
    save_device(DiskFiles(), Layout(tmp_path), device)
    ran = shell(f"agent status --state {tmp_path}")
    assert ran.code == 0
    assert "press-1 (d1)" in ran.out
    assert "skerry agent run" in ran.out


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("agent run --state s", ["run", "--state=s", "--listen=127.0.0.1"]),
        (
            "agent run --state s --poll 1m --once --json-logs --port-base 9000 -v",
            [
                "--json-logs",
                "--verbose",
                "run",
                "--once",
                "--state=s",
                "--listen=127.0.0.1",
                "--port-base=9000",
                "--poll=60.0",
            ],
        ),
    ],
)
def test_run_says_to_the_agent_what_it_was_told(shell, monkeypatch, line, arguments):
    asked = []

    def fake_main(argv):
        asked.append(argv)
        return 0

    monkeypatch.setattr(agent, "main", fake_main)
    assert shell(line).code == 0
    assert sorted(asked[0]) == sorted(arguments)
    assert agent._parser().parse_args(asked[0]).command == "run"


def test_status_in_words():
    status = Status(
        pid=7,
        device_id="d1",
        name="press-1",
        hub="https://h",
        at=0.0,
        capabilities=Capabilities(arch="x", cpus=1, memory_mib=1),
        hub_reachable=False,
        outbox=12,
    )
    lines = status_lines(status)
    assert "Hub:         https://h not reachable" in lines
    assert "Outbox:      12 waiting" in lines
    assert "no workload yet" in lines[-1]


def test_status_of_workloads():
    fields = {"name": "weld", "state": "committed"}
    known = {
        field: "" for field in WorkloadStatus.__struct_fields__ if field in {"bundle", "variant", "url", "problem"}
    }
    work = WorkloadStatus(**{**known, **fields, "bundle": "weld:1", "url": "http://127.0.0.1:9000", "variant": "int8"})
    status = Status(
        pid=7,
        device_id="d1",
        name="press-1",
        hub="https://h",
        at=0.0,
        capabilities=Capabilities(arch="x", cpus=1, memory_mib=1),
        workloads=(work,),
    )
    assert status_lines(status)[-1].split() == ["weld", "committed", "weld:1", "int8", "http://127.0.0.1:9000"]
