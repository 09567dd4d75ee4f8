# SPDX-License-Identifier: Apache-2.0
"""Limits of runners: control groups of both versions as folders, and the real ones where this machine has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skerry.agent.supervise.groups import Groups, Mechanism, nice_of, open_groups, words
from skerry.wire.v1.device import Limits

HALF = Limits(memory_mib=256, cpu_share=0.5)


def mounted(tmp_path: Path, cgroup: str, *mounts: tuple[str, str, str]) -> Path:
    """A /proc/self that says so."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    lines = [f"30 24 0:26 / {tmp_path / at} rw - {kind} cgroup rw,{options}\n" for at, kind, options in mounts]
    (proc / "mountinfo").write_text("22 1 0:20 / / rw - ext4 /dev/vda rw\n" + "".join(lines))
    return proc


def test_v2_where_the_controllers_are_delegated(tmp_path):
    own = tmp_path / "unified" / "system.slice" / "agent.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu io memory pids")
    proc = mounted(tmp_path, "0::/system.slice/agent.service\n", ("unified", "cgroup2", "nsdelegate"))
    groups = open_groups(tmp_path, proc=proc)
    assert (groups.mechanism, groups.memory) == (Mechanism.V2, own)
    assert (own / "cgroup.subtree_control").read_text() == "+memory +cpu"
    assert groups.place(41, "eye", HALF) == "cgroup v2: memory 256 MiB, cpu share 0.5"
    made = own / f"{groups.prefix}-eye.41"
    assert {file.name: file.read_text() for file in made.iterdir()} == {
        "memory.max": str(256 << 20),
        "memory.swap.max": "0",
        "cpu.weight": "50",
        "cgroup.procs": "41",
    }


def test_v1_where_v2_has_no_controllers(tmp_path):
    for folder in ("memory/box", "cpu", "unified"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "unified" / "cgroup.controllers").write_text("")
    proc = mounted(
        tmp_path,
        "4:memory:/box\n1:cpu:/\n0::/\n",
        ("memory", "cgroup", "memory"),
        ("cpu", "cgroup", "cpu"),
        ("unified", "cgroup2", "x"),
    )
    groups = open_groups(tmp_path, proc=proc)
    assert (groups.mechanism, groups.memory, groups.cpu) == (Mechanism.V1, tmp_path / "memory/box", tmp_path / "cpu")
    assert groups.place(41, "eye", HALF).startswith("cgroup v1: ")
    assert (groups.memory / f"{groups.prefix}-eye.41" / "memory.limit_in_bytes").read_text() == str(256 << 20)
    assert (groups.cpu / f"{groups.prefix}-eye.41" / "cpu.shares").read_text() == "512"


def test_neither(tmp_path):
    groups = open_groups(tmp_path, proc=mounted(tmp_path, "0::/\n"))
    assert groups.mechanism is Mechanism.NONE
    groups.sweep()
    assert groups.left(1, "eye") == ""


def test_nothing_is_done_where_nothing_is_asked(tmp_path):
    assert Groups(mechanism=Mechanism.V2, memory=tmp_path, cpu=tmp_path).place(1, "eye", Limits()) == ""
    assert list(tmp_path.iterdir()) == []


def test_limit_that_cannot_be_set_is_said(tmp_path):
    gone = Groups(mechanism=Mechanism.V2, memory=tmp_path / "no", cpu=tmp_path / "no")
    assert gone.place(1, "eye", HALF).startswith("not in force: ")


@pytest.mark.parametrize(("share", "nice"), [(1.0, 0), (4.0, 0), (0.8, 1), (0.5, 3), (0.1, 10), (0.0, 19)])
def test_share_as_nice(share, nice):
    assert nice_of(share) == nice


@pytest.mark.parametrize(
    ("mechanism", "file", "values"),
    [(Mechanism.V2, "cpu.weight", ("12", "50", "25")), (Mechanism.V1, "cpu.shares", ("128", "512", "256"))],
)
def test_a_version_in_a_trial_has_a_quarter_of_its_share_until_it_serves(tmp_path, mechanism, file, values):
    groups = Groups(mechanism=mechanism, memory=tmp_path, cpu=tmp_path)
    groups.place(41, "eye", HALF)
    limited, free = tmp_path / "skerry-eye.41", tmp_path / "skerry-eye.42"
    groups.ease(41, "eye", HALF)
    assert (limited / file).read_text() == values[0]
    groups.settle(41, "eye", HALF)
    assert (limited / file).read_text() == values[1]
    groups.ease(42, "eye", Limits())
    assert ((free / file).read_text(), (free / "cgroup.procs").read_text()) == (values[2], "42")
    groups.settle(42, "eye", Limits())
    assert (tmp_path / "cgroup.procs").read_text() == "42"  # back where it came from


def test_without_groups_a_version_in_a_trial_is_left_alone(tmp_path):
    for groups in (Groups(), Groups(mechanism=Mechanism.V2, memory=tmp_path / "no", cpu=tmp_path / "no")):
        groups.ease(2**22, "eye", Limits())
        groups.settle(2**22, "eye", Limits())
    assert list(tmp_path.iterdir()) == []


def test_words():
    assert words(Limits(memory_mib=64)) == "memory 64 MiB"
    assert words(Limits(cpu_share=2)) == "cpu share 2"


@pytest.mark.slow
def test_real_group_ends_who_needs_more_and_nobody_else(tmp_path):
    groups = open_groups(tmp_path)
    if groups.mechanism is Mechanism.NONE:
        pytest.skip("no control groups of ours on this machine")
    wait_then = "import sys; sys.stdin.readline(); x = bytearray({} << 20); print(len(x)); sys.stdin.readline()"
    hungry, modest = (
        subprocess.Popen(
            [sys.executable, "-c", wait_then.format(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for mib in (200, 5)
    )
    for process in (hungry, modest):
        assert process.stdin is not None
        assert groups.place(process.pid, "eye", Limits(memory_mib=64)).startswith(groups.mechanism)
        process.stdin.write("\n")
        process.stdin.flush()
    assert hungry.wait(30) == -9
    assert modest.stdout is not None
    assert modest.stdout.readline() == f"{5 << 20}\n"
    assert "more memory than its limit" in groups.left(hungry.pid, "eye")
    modest.kill()
    modest.wait(10)
    for process in (hungry, modest):
        process.communicate()
    open_groups(tmp_path)  # another agent, after this one was killed
    assert not list(groups.memory.glob(f"{groups.prefix}-*"))
    assert not list(groups.cpu.glob(f"{groups.prefix}-*"))


@pytest.mark.slow
def test_real_group_of_a_trial_is_left_again_when_it_serves(tmp_path):
    groups = open_groups(tmp_path)
    if groups.mechanism is Mechanism.NONE:
        pytest.skip("no control groups of ours on this machine")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        groups.ease(process.pid, "eye", Limits())
        made = groups.cpu / f"{groups.prefix}-eye.{process.pid}"
        assert made.joinpath("cgroup.procs").read_text().split() == [str(process.pid)]
        groups.settle(process.pid, "eye", Limits())
        assert not made.exists()
        process.communicate(b"\n")
