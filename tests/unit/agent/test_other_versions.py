# SPDX-License-Identifier: Apache-2.0
"""Agents and hubs of the version before trials, by their structs as they were."""

from __future__ import annotations

from enum import StrEnum

import msgspec
import pytest
from msgspec import Struct

from skerry.agent.outbox import Outbox
from skerry.agent.reporting import Reporter
from skerry.agent.state import Attempt, Phase
from skerry.agent.transport import Backoff
from skerry.errors import BadRequest
from skerry.wire.v1.device import Assignment, BundleRef, KeepWarm, Limits, Trial, TrialMode, WorkloadSpec
from skerry.wire.v1.report import (
    Body,
    FiguresReport,
    ReportAck,
    ReportBatch,
    TrialReport,
    WorkloadReport,
    WorkloadState,
)
from skerry.wire.v1.runner import TrialCounts

REF = BundleRef(line="l", model="m", version="1", digest="sha256:1", release_seq=1, target="l/m/1.json")


class OldSpec(Struct, frozen=True, kw_only=True):
    name: str
    bundle: BundleRef
    soak_seconds: float = 30.0
    rollout: str = ""
    max_error_rate: float = 0.05
    max_latency_p95_ms: float | None = None


class OldAssignment(Struct, frozen=True, kw_only=True):
    device_id: str
    sequence: int
    issued: float
    expires: float
    workloads: tuple[OldSpec, ...] = ()


class OldState(StrEnum):
    FETCHING = "fetching"
    SOAKING = "soaking"
    COMMITTED = "committed"
    UNDONE = "undone"


class OldWorkloadReport(Struct, frozen=True, kw_only=True, tag="workload"):
    workload: str
    digest: str
    state: OldState
    variant: str = ""
    rollout: str = ""


class OldFigures(Struct, frozen=True, kw_only=True, tag="figures"):
    workload: str
    digest: str
    window_seconds: float
    requests: int


class OldReport(Struct, frozen=True, kw_only=True):
    seq: int
    at: float
    body: OldWorkloadReport | OldFigures


class OldBatch(Struct, frozen=True, kw_only=True):
    reports: tuple[OldReport, ...]
    outbox: str = ""
    oldest: int = 0


def test_an_old_agent_reads_what_is_asked_of_it_without_the_trial_and_the_limits():
    wanted = WorkloadSpec(
        name="w", bundle=REF, trial=Trial(mode=TrialMode.CANARY), keep_warm=KeepWarm.NEVER, limits=Limits(memory_mib=1)
    )
    sent = Assignment(device_id="d", sequence=3, issued=1.0, expires=2.0, workloads=(wanted,))
    read = msgspec.json.decode(msgspec.json.encode(sent), type=OldAssignment)
    assert (read.sequence, read.workloads) == (3, (OldSpec(name="w", bundle=REF),))


def test_what_an_old_hub_assigned_and_an_old_agent_kept_is_read_as_it_was_meant():
    old = OldAssignment(device_id="d", sequence=3, issued=1.0, expires=2.0, workloads=(OldSpec(name="w", bundle=REF),))
    (spec,) = msgspec.json.decode(msgspec.json.encode(old), type=Assignment).workloads
    assert (spec.trial, spec.keep_warm, spec.limits) == (None, KeepWarm.AUTO, Limits())
    kept = b'{"spec":%s,"sequence":3,"phase":"soak","started":1.0}' % msgspec.json.encode(old.workloads[0])
    attempt = msgspec.json.decode(kept, type=Attempt)
    assert (attempt.phase, attempt.trials, attempt.spec.trial) == (Phase.SOAK, 0, None)


def test_counts_of_a_runner_that_an_earlier_agent_started():
    told = b'{"type":"trial-counts","path":"p","asked":1,"dropped":0,"compared":1,"agreed":1}'
    assert msgspec.json.decode(told, type=TrialCounts).skipped == 0


class Dice:
    def token(self, size: int) -> bytes:
        return b"\xff" * size


class OldHub:
    """Refuses a batch it cannot read, as the API does; takes what is behind a gap from a batch that begins there."""

    def __init__(self) -> None:
        self.through = 0
        self.taken: list[object] = []

    def report(self, batch: ReportBatch) -> ReportAck:
        try:
            read = msgspec.json.decode(msgspec.json.encode(batch), type=OldBatch)
        except msgspec.ValidationError as error:
            raise BadRequest(problem=str(error)) from error
        for report in read.reports:
            assert report.seq in {self.through + 1, read.oldest}
            self.through = report.seq
            self.taken.append(report.body)
        return ReportAck(through=self.through)


@pytest.mark.parametrize("first", [True, False])
def test_reports_of_trials_hold_up_nothing_at_a_hub_that_was_set_back(tmp_path, first):
    figures = FiguresReport(
        workload="w", digest="d", window_seconds=1, requests=1, errors=0, latency_p50_ms=1, latency_p95_ms=1,
        latency_p99_ms=1,
    )  # fmt: skip
    trial = TrialReport(
        workload="w", digest="d", mode=TrialMode.SHADOW, finished=True, seconds=1, asked=1, errors=0, compared=1
    )
    trying = WorkloadReport(workload="w", digest="d", state=WorkloadState.TRYING)
    done = WorkloadReport(workload="w", digest="d", state=WorkloadState.COMMITTED)
    outbox = Outbox(tmp_path / "outbox.db")
    bodies: list[Body] = [*([] if first else [figures]), trying, trial, figures, trial, done]
    outbox.put((1.0, body) for body in bodies)
    hub = OldHub()
    reporter = Reporter(outbox, hub, Backoff(Dice()))  # type: ignore[arg-type] # the one call a reporter makes
    assert [reporter.round(0.0) for _ in range(12)] == [0.0] * 12
    assert len(outbox) == 0
    assert [type(body) for body in hub.taken] == [*([] if first else [OldFigures]), OldFigures, OldWorkloadReport]
    outbox.close()


def test_another_refusal_drops_nothing(tmp_path):
    class Stubborn(OldHub):
        def report(self, batch: ReportBatch) -> ReportAck:
            raise BadRequest(problem="as ever")

    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put([(1.0, WorkloadReport(workload="w", digest="d", state=WorkloadState.COMMITTED))])
    reporter = Reporter(outbox, Stubborn(), Backoff(Dice()))  # type: ignore[arg-type] # the one call a reporter makes
    assert reporter.round(0.0) > 0
    assert len(outbox) == 1
    outbox.close()
