# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.agent.history import History
from skerry.agent.outbox import Outbox
from skerry.agent.state import Pending, WorkloadRecord
from skerry.testing.files import PowerCut
from skerry.trust.chain import Broken, ChainProblem, Intact
from skerry.wire.v1.report import HistoryEntry, HistoryReport, WorkloadReport, WorkloadState


class Made:
    def __init__(self, folder):
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()
        self.outbox = Outbox(folder / "outbox.db")
        self.history = History(self.outbox, device_id="d", private_key=self.key)


@pytest.fixture
def made(tmp_path):
    it = Made(tmp_path)
    yield it
    it.outbox.close()


def test_entries_are_chained_and_on_their_way(made):
    for number in range(3):
        made.history.append("tested", at=float(number), fields={"number": number})
    assert made.history.verify(made.public_key) == Intact(head=list(made.history.entries())[-1].hash, count=3)
    assert [report.body.entry.n for report in made.outbox.batch()] == [1, 2, 3]


def test_paging_goes_over_page_borders(made):
    for number in range(7):
        made.history.append("tested", at=float(number), fields={})
    assert [entry.n for entry in made.history.entries(page=3)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "n", "problem"),
    [
        ("UPDATE history SET entry = replace(CAST(entry AS TEXT), 'tested', 'tasted') WHERE n = 2", 2, "altered"),
        ("DELETE FROM history WHERE n = 2", 2, "gap"),
        ("DELETE FROM history WHERE n = 1", 1, "gap"),
    ],
)
def test_tampering_is_found(made, change, n, problem):
    for number in range(3):
        made.history.append("tested", at=float(number), fields={})
    with made.outbox.reading() as connection:
        connection.execute(change)
    assert made.history.verify(made.public_key) == Broken(n=n, problem=ChainProblem(problem))


def test_another_devices_key_does_not_verify(made):
    made.history.append("tested", at=0.0, fields={})
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert made.history.verify(other) == Broken(n=1, problem=ChainProblem.BAD_SIGNATURE)


def record(revision: int) -> WorkloadRecord:
    report = WorkloadReport(workload="w", digest="x", state=WorkloadState.COMMITTED)
    pending = Pending(kind="committed", at=1.0, report=report, fields={"digest": "x"})
    return WorkloadRecord(name="w", revision=revision, pending=(pending,))


def test_pending_is_emitted_once_per_revision(made):
    assert made.history.emit(record(1))
    assert not made.history.emit(record(1))
    assert made.history.emit(record(3))
    assert not made.history.emit(record(3))
    assert [entry.kind for entry in made.history.entries()] == ["committed", "committed"]
    assert [type(report.body) for report in made.outbox.batch()] == [HistoryReport, WorkloadReport] * 2


class Wire:
    """A connection on which the power goes before statement number `left`."""

    def __init__(self, connection, left: int) -> None:
        self.connection, self.left = connection, left

    def execute(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise PowerCut
        return self.connection.execute(*arguments)

    def __getattr__(self, name: str):
        return getattr(self.connection, name)


@pytest.mark.parametrize("statements", range(8))
def test_a_power_cut_anywhere_in_emit_leaves_all_of_it_or_nothing(made, tmp_path, statements):
    made.outbox._connection = Wire(made.outbox._connection, statements)
    try:
        made.history.emit(record(1))
    except PowerCut:
        made.outbox._connection.connection.close()
        made.outbox = Outbox(tmp_path / "outbox.db")
        made.history = History(made.outbox, device_id="d", private_key=made.key)
    assert len(list(made.history.entries())) == len(made.history.workloads()) == len(made.outbox) // 2
    made.history.emit(record(1))
    assert [entry.kind for entry in made.history.entries()] == ["committed"]
    assert [type(report.body) for report in made.outbox.batch()] == [HistoryReport, WorkloadReport]


def test_a_record_that_was_lost_and_begun_anew_is_heard(made):
    assert made.history.emit(record(3))
    assert made.history.emit(record(1))
    assert made.history.workloads() == {record(1).name}


def test_pending_without_a_kind_is_for_the_hub_only(made):
    quiet = msgspec.structs.replace(record(1).pending[0], kind="")
    assert made.history.emit(msgspec.structs.replace(record(1), pending=(quiet,)))
    assert list(made.history.entries()) == []
    assert len(made.outbox) == 1


def test_entry_keeps_its_bytes_through_the_database(made):
    made.history.append("tested", at=1_800_000_000.123456, fields={"text": "é", "flag": True, "ratio": 0.1})
    (entry,) = made.history.entries()
    assert isinstance(entry, HistoryEntry)
    assert entry.fields == {"text": "é", "flag": True, "ratio": 0.1}
    assert isinstance(made.history.verify(made.public_key), Intact)
