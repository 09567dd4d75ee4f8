# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from pathlib import Path

import pytest

from skerry.agent.supervise.box import open_box, parse_address, shown
from skerry.agent.supervise.doors import Ports, open_doors, run_folder
from skerry.errors import AddressTaken, UsageError


def test_a_workload_has_a_port_a_unix_socket_and_an_exchange(tmp_path):
    doors = open_doors(Ports(run=tmp_path / "run"), "eye", 0, [])
    assert doors.unix_path == str(tmp_path / "run" / "eye.sock")
    assert [Path(path).stat().st_mode & 0o777 for path in (doors.unix_path, doors.exchange_path)] == [0o660, 0o600]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(doors.unix_path)
    doors.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_what_a_killed_agent_left_at_the_path_gives_way(tmp_path):
    first = open_doors(Ports(run=tmp_path), "eye", 0, [])
    second = open_doors(Ports(run=tmp_path), "eye", 0, [])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(second.unix_path)
        assert second.unix is not None
        accepted, _ = second.unix.accept()
        accepted.close()
    for doors in (second, first):
        doors.close()


def test_folder_too_deep_for_a_unix_socket_leaves_the_port_and_says_so(tmp_path):
    doors = open_doors(Ports(run=tmp_path / ("x" * 100)), "eye", 0, [])
    assert (doors.unix, doors.exchange) == (None, None)
    assert "102 bytes" in doors.problem
    assert doors.port
    doors.close()


def test_run_folder_is_the_one_systemd_made(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/skerry-agent:/run/other")
    assert str(run_folder(tmp_path)) == "/run/skerry-agent"
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert run_folder(tmp_path) == tmp_path / "run"


@pytest.mark.parametrize(
    ("text", "expected"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:8080", ("::1", 8080)), ("box:0", ("box", 0))]
)
def test_addresses(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:65536", "host:-1", "host:x"])
def test_what_is_no_address(text):
    with pytest.raises(UsageError):
        parse_address(text)


def test_address_that_is_taken_is_named_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressTaken, match=f"cannot listen on {address}: Address already in use") as refused:
            open_box(address, [])
        assert "ss -ltnp" in refused.value.hint()
    assert open_box("", []) is None
    assert shown(None) == ""
