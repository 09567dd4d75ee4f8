# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.agent.capabilities import boot_id, measure, merge_file
from skerry.errors import ConfigError
from skerry.wire.v1.device import Accelerator


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "dev").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemFree: 1 kB\nMemTotal:  2097152 kB\n")
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n")
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b-1\n")
    (tmp_path / "etc/os-release").write_text('NAME=x\nPRETTY_NAME="Edge Linux 3"\n')
    return tmp_path


def test_measures_without_loading_an_engine(root):
    found = measure(version="1.2", root=root)
    assert (found.memory_mib, found.instructions, found.os) == (2048, ("avx2", "avx512_vnni"), "Edge Linux 3")
    assert found.runtimes["onnxruntime"]
    assert found.cpus >= 1
    assert found.agent_version == "1.2"
    assert boot_id(root) == "b-1"


def test_arm_calls_its_instructions_features(root):
    (root / "proc/cpuinfo").write_text("Features : fp asimd i8mm\n")
    assert measure(version="1", root=root).instructions == ("asimd", "i8mm")


def test_accelerators_are_seen_by_their_nodes(root):
    (root / "dev/hailo0").touch()
    assert measure(version="1", root=root).accelerators == (Accelerator(kind="hailo"),)


def test_strange_system_measures_nothing_and_does_not_fail(tmp_path):
    found = measure(version="1", root=tmp_path)
    assert (found.memory_mib, found.instructions, boot_id(tmp_path)) == (0, (), "")


def test_file_states_over_what_was_measured(root):
    path = root / "stated.json"
    path.write_text('{"memory_mib": 64, "accelerators": [{"kind": "npu"}]}')
    found = merge_file(measure(version="1", root=root), path)
    assert (found.memory_mib, found.accelerators, found.instructions[0]) == (64, (Accelerator(kind="npu"),), "avx2")


@pytest.mark.parametrize("text", ["[]", "{", '{"memory": 1}', '{"memory_mib": "much"}'])
def test_wrong_file_is_a_configuration_error(root, text):
    path = root / "stated.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        merge_file(measure(version="1", root=root), path)
    with pytest.raises(ConfigError):
        merge_file(measure(version="1", root=root), root / "missing.json")


def test_this_machine():
    assert measure(version="1").arch
