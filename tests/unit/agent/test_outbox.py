# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from skerry.agent.outbox import Outbox
from skerry.errors import StateDamaged, StorageError
from skerry.wire.v1.report import FiguresReport, ResultReport, WorkloadReport, WorkloadState


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path):
    made = Outbox(path)
    yield made
    made.close()


def result(number: int) -> ResultReport:
    return ResultReport(workload="w", event_id=f"e{number}", at=1.0, bundle="m:1", outputs={"y": [number]})


def workload(state: WorkloadState = WorkloadState.COMMITTED) -> WorkloadReport:
    return WorkloadReport(workload="w", digest="sha256:0", state=state)


def test_commits_survive_a_power_cut_by_sqlites_own_rules(outbox):
    """sqlite.org/pragma.html#pragma_synchronous: in WAL mode only FULL syncs at every commit."""
    with outbox.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_reports_come_back_in_order_until_forgotten(outbox):
    assert outbox.put([(1.0, result(1)), (2.0, workload())]) == 2
    batch = outbox.batch()
    assert [(report.seq, report.at, report.body) for report in batch] == [(1, 1.0, result(1)), (2, 2.0, workload())]
    assert outbox.batch() == batch
    assert outbox.forget(1) == 1
    assert [report.seq for report in outbox.batch()] == [2]
    assert len(outbox) == 1


def test_sequence_grows_over_deletion_and_restart(path):
    outbox = Outbox(path)
    outbox.put([(1.0, result(1)), (1.0, result(2))])
    outbox.forget(2)
    outbox.close()
    outbox = Outbox(path)
    assert len(outbox) == 0
    assert outbox.put([(1.0, result(3))]) == 3
    outbox.close()


def test_batch_is_bounded_by_rows_and_bytes_but_never_empty(outbox):
    outbox.put((1.0, result(number)) for number in range(10))
    assert len(outbox.batch(rows=3)) == 3
    assert len(outbox.batch(size=1)) == 1


def test_transaction_is_all_or_nothing(outbox):
    def broken() -> None:
        with outbox.transaction() as transaction:
            transaction.put(1.0, result(1))
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert len(outbox) == 0
    assert outbox.batch() == ()


def test_full_queue_drops_the_oldest_figures_and_results_never_what_happened(path):
    outbox = Outbox(path, row_limit=100)
    outbox.put([(1.0, workload())])
    figures = FiguresReport(
        workload="w", digest="d", window_seconds=1, requests=1, errors=0,
        latency_p50_ms=1, latency_p95_ms=1, latency_p99_ms=1,
    )  # fmt: skip
    outbox.put([(1.0, figures)])
    outbox.put((1.0, result(number)) for number in range(1_500))
    batches = []
    while batch := outbox.batch(rows=5_000):
        batches.append(batch)
        outbox.forget(batch[-1].seq)
    bodies = [report.body for batch in batches for report in batch]
    assert len(batches) == 2, "a batch ends where numbers are missing"
    assert bodies[0] == workload()
    assert figures not in bodies
    assert bodies[-1] == result(1_499)
    assert outbox.dropped == 1_502 - len(bodies) > 0
    outbox.close()


def test_what_was_put_survives_a_kill(path):
    code = (
        "import sys, os, signal; from pathlib import Path; from skerry.agent.outbox import Outbox\n"
        "from skerry.wire.v1.report import ResultReport\n"
        "o = Outbox(Path(sys.argv[1]))\n"
        "o.put([(1.0, ResultReport(workload='w', event_id='e', at=1.0, bundle='m:1', outputs={}))])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=50).returncode == -9
    outbox = Outbox(path)
    assert [report.seq for report in outbox.batch()] == [1]
    outbox.close()


def test_damaged_database_is_told_apart_from_a_full_disk(path):
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StateDamaged):
        Outbox(path)


def test_locked_database_is_a_storage_error(outbox, path):
    outbox._connection.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError):
        outbox.put([(1.0, result(1))])
    other.execute("ROLLBACK")
    other.close()
    outbox.put([(1.0, result(1))])


def test_each_database_has_an_identity_of_its_own_for_good(path, tmp_path):
    first, other = Outbox(path), Outbox(tmp_path / "other.db")
    assert len(first.identity) == 32
    assert first.identity != other.identity
    first.close()
    other.close()
    again = Outbox(path)
    assert again.identity == first.identity
    again.close()


def test_a_database_from_before_identities_goes_on_without_one(path):
    """A name given later would make its reports those of another outbox, which begins at 1."""
    old = Outbox(path)
    old.put([(1.0, result(1))])
    old._connection.execute("DROP TABLE identity")
    old.close()
    outbox = Outbox(path)
    assert outbox.identity == ""
    assert [report.seq for report in outbox.batch()] == [1]
    outbox.close()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"type":"of-next-year"}', b"[" * 100_000, b'{"type":"result"}'])
def test_a_report_that_cannot_be_read_holds_up_none_behind_it(outbox, body):
    outbox.put([(1.0, result(number)) for number in (1, 2, 3)])
    with outbox.reading() as connection:
        connection.execute("UPDATE outbox SET body = ? WHERE seq = 2", (body,))
    assert [report.seq for report in outbox.batch()] == [1]
    outbox.forget(1)
    assert [report.seq for report in outbox.batch()] == [3]
    assert (len(outbox), outbox.dropped) == (1, 1)
