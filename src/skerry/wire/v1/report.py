# SPDX-License-Identifier: Apache-2.0
"""Device -> hub: reports. Every report has a sequence number of the device's outbox, so a batch may be sent any number of times."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from skerry.wire.v1.device import Capabilities, TrialMode


class WorkloadState(StrEnum):
    FETCHING = "fetching"
    SELF_TESTING = "self-testing"
    TRYING = "trying"  # runs beside the current version; reported only for an assignment that asked for a trial
    SWITCHING = "switching"
    SOAKING = "soaking"
    COMMITTED = "committed"  # verified activation + self-test + soak: the only success
    UNDONE = "undone"  # tried, failed, and back on what ran before
    REFUSED = "refused"  # trust or fit said no; nothing was tried
    FELL_BACK = "fell-back"  # was committed, later crashed and went back: re-opens the record
    REMOVED = "removed"


TERMINAL_FAILURES = frozenset({WorkloadState.UNDONE, WorkloadState.REFUSED, WorkloadState.FELL_BACK})


class WorkloadReport(Struct, frozen=True, kw_only=True, tag="workload"):
    workload: str
    digest: str  # bundle manifest digest this is about
    state: WorkloadState
    variant: str = ""
    rollout: str = ""
    reason: str = ""  # stable word: an error code or a refusal reason
    detail: str = ""
    running: str = ""  # digest that serves after this event; empty when none
    sequence: int = 0  # of the assignment that caused it


class FiguresReport(Struct, frozen=True, kw_only=True, tag="figures"):
    """What a runner measured over the last window. Latency counts live requests; with none, the runner's own probes."""

    workload: str
    digest: str
    window_seconds: float
    requests: int
    errors: int
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    probes: int = 0
    variant: str = ""
    rollout: str = ""


class TrialReport(Struct, frozen=True, kw_only=True, tag="trial"):
    """What a trial has measured so far; the last one of a trial is `finished`. Sent only for an assignment that asked for one.

    Counts only: no input and no output of any request. `flips` counts `was > is now` pairs of classes, the most frequent
    ones. Shift is the change of the top value of an answer. Latencies are live requests', each as its own runner saw them.
    """

    workload: str
    digest: str  # of the new version
    mode: TrialMode
    finished: bool
    seconds: float
    asked: int  # requests the new version was given
    errors: int  # of those, not answered, or not in time
    compared: int = 0  # answers (rows) held against the current version's
    agreed: int = 0
    dropped: int = 0  # copies not sent because the new version was behind
    flips: dict[str, int] = {}
    shift_mean: float | None = None
    shift_p05: float | None = None
    shift_p95: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_ratio: float | None = None  # p95 to the current version's p95
    against: str = ""  # digest of the current version
    variant: str = ""
    rollout: str = ""
    reason: str = ""  # why it did not pass; empty for one that did, or is not finished
    detail: str = ""


class ResultReport(Struct, frozen=True, kw_only=True, tag="result"):
    """Declared outputs of one answered request (bundle `egress`), never inputs."""

    workload: str
    event_id: str
    at: float
    bundle: str  # name:version
    outputs: dict[str, list[float | int | str | bool]]
    request_id: str = ""


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One link of the device's hash chain. `trust.chain` says how `hash` and `signature` are made."""

    n: int
    at: float
    kind: str
    fields: dict[str, str | int | float | bool]
    previous: str
    hash: str
    signature: bytes


class HistoryReport(Struct, frozen=True, kw_only=True, tag="history"):
    entry: HistoryEntry


class DeviceReport(Struct, frozen=True, kw_only=True, tag="device"):
    """Sent on start and when something changed."""

    capabilities: Capabilities
    issues: tuple[str, ...] = ()
    sequence: int = 0  # of the assignment in force
    boot: str = ""


Body = WorkloadReport | FiguresReport | TrialReport | ResultReport | HistoryReport | DeviceReport


class Report(Struct, frozen=True, kw_only=True):
    seq: int
    at: float
    body: Body


class ReportBatch(Struct, frozen=True, kw_only=True):
    """Sequences count within one outbox: a device whose outbox was lost begins again at 1, under another identity."""

    reports: tuple[Report, ...]
    outbox: str = ""  # which outbox they are from: a word of at most 64 characters, made with it
    oldest: int = 0  # lowest sequence the device still holds: what is missing before it will never come; 0 = unknown


class ReportAck(Struct, frozen=True, kw_only=True):
    """Everything of the batch's outbox up to and including `through` is stored, or lost; the device may forget it."""

    through: int
