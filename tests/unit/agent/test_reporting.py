# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.agent.outbox import Outbox
from skerry.agent.reporting import Reporter
from skerry.agent.transport import Backoff
from skerry.errors import HubUnreachable
from skerry.wire.v1.report import ReportAck, ReportBatch, ResultReport


class Dice:
    def token(self, size: int) -> bytes:
        return b"\xff" * size


class Road:
    def __init__(self, *through: int) -> None:
        self.through = iter(through)
        self.batches: list[ReportBatch] = []

    def report(self, batch: ReportBatch) -> ReportAck:
        self.batches.append(batch)
        through = next(self.through, None)
        if through is None:
            raise HubUnreachable(url="hub", problem="away")
        return ReportAck(through=through)


@pytest.fixture
def outbox(tmp_path):
    made = Outbox(tmp_path / "outbox.db")
    reports = [ResultReport(workload="w", event_id=str(n), at=1.0, bundle="m:1", outputs={}) for n in range(3)]
    made.put((1.0, report) for report in reports)
    yield made
    made.close()


def reporter(outbox: Outbox, road: Road) -> Reporter:
    return Reporter(outbox, road, Backoff(Dice()))  # type: ignore[arg-type] # the one call a reporter makes


def test_what_the_hub_took_is_forgotten(outbox):
    assert reporter(outbox, Road(2)).round(0.0) == 0.0
    assert [report.seq for report in outbox.batch()] == [3]


def test_what_it_took_of_more_than_was_sent_is_what_was_sent(outbox):
    assert reporter(outbox, Road(10**9)).round(0.0) == 0.0
    assert len(outbox) == 0


@pytest.mark.parametrize("through", [0, -5])
def test_a_hub_that_takes_nothing_is_not_asked_in_a_tight_loop(outbox, through):
    sender = reporter(outbox, Road(through, through, through, 3))
    assert [sender.round(0.0) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert len(outbox) == 3
    assert sender.round(0.0) == 0.0
    assert len(outbox) == 0


def test_a_hub_out_of_reach_costs_nothing_but_time(outbox):
    sender = reporter(outbox, Road())
    assert sender.round(0.0) == 1.0
    assert sender.reached is False
    assert len(outbox) == 3
