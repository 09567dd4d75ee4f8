# SPDX-License-Identifier: Apache-2.0
"""Results: a runner may forget one only when it survives a power cut here."""

from __future__ import annotations

from typing import Any

import pytest

from skerry.agent.outbox import Outbox
from skerry.agent.results import BATCH, ResultWriter
from skerry.agent.update.contract import Launch
from skerry.errors import StorageError
from skerry.wire.v1.runner import Result


class Runner:
    launch = Launch(workload="w", digest="sha256:0", bundle_dir="/b", variant="v", bundle="m:1")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.acks: list[tuple[int, int]] = []  # through, and how many were durable by then

    def acked(self, through: int) -> None:
        self.acks.append((through, len(self._outbox)))


def said(number: int) -> Result:
    return Result(n=number, event_id=f"e{number}", at=1.0, outputs={"y": [number]})


@pytest.fixture
def outbox(tmp_path):
    made = Outbox(tmp_path / "outbox.db")
    yield made
    made.close()


def test_acknowledged_after_they_are_durable_in_one_go(outbox):
    writer, runner = ResultWriter(outbox), Runner(outbox)
    for number in (1, 2, 3):
        writer.result(runner, said(number))  # type: ignore[arg-type] # what a writer uses of a runner
    assert writer.round(0.1) == 0.0
    assert runner.acks == [(3, 3)]


def test_nothing_is_acknowledged_that_could_not_be_stored_and_it_is_tried_again(outbox, monkeypatch):
    writer, runner = ResultWriter(outbox), Runner(outbox)
    writer.result(runner, said(1))  # type: ignore[arg-type] # what a writer uses of a runner

    def full(*_: Any) -> int:
        raise StorageError(path="outbox.db", problem="database or disk is full")

    monkeypatch.setattr(outbox, "put", full)
    assert writer.round(0.1) > 0
    assert runner.acks == []
    monkeypatch.undo()
    assert writer.round(0.1) == 0.0
    assert runner.acks == [(1, 1)]
    assert [report.body.event_id for report in outbox.batch()] == ["e1"]


def test_many_are_written_in_bounded_batches(outbox):
    writer, runner = ResultWriter(outbox), Runner(outbox)
    for number in range(1, 2 * BATCH + 2):
        writer.result(runner, said(number))  # type: ignore[arg-type] # what a writer uses of a runner
    for _ in range(3):
        writer.round(0.1)
    assert [through for through, _ in runner.acks] == [BATCH, 2 * BATCH, 2 * BATCH + 1]
    assert len(outbox) == 2 * BATCH + 1
