# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from skerry.agent.state import Layout, Records, WorkloadRecord
from skerry.errors import StorageError
from skerry.testing.files import MemoryFiles

LAYOUT = Layout(Path("/s"))


def test_a_record_that_could_not_be_written_is_not_in_force():
    files = MemoryFiles()
    records = Records(files, LAYOUT)
    records.put(WorkloadRecord(name="w", port=1))
    files.fill(free=0)
    with pytest.raises(StorageError):
        records.put(WorkloadRecord(name="w", port=2, revision=1))
    assert records.get("w") == Records(files, LAYOUT).get("w")
    assert (records.get("w").port, records.get("w").revision) == (1, 1)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"name":"other"}', b"[]", bytes(50)])
def test_a_record_that_cannot_be_read_is_set_aside_and_named(data):
    files = MemoryFiles()
    Records(files, LAYOUT).put(WorkloadRecord(name="good"))
    files.write(LAYOUT.workloads / "bad.json", data)
    records = Records(files, LAYOUT)
    assert [record.name for record in records.all()] == ["good"]
    assert records.damaged.keys() == {"bad"}
    assert files.read(LAYOUT.workloads / "bad.json.damaged") == data
    assert Records(files, LAYOUT).damaged == {}


def test_what_another_version_added_to_a_record_is_no_damage():
    files = MemoryFiles()
    data = msgspec.json.encode({"name": "w", "port": 7, "moon": "full"})
    files.write(LAYOUT.workloads / "w.json", data)
    assert Records(files, LAYOUT).get("w").port == 7
