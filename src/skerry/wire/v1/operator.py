# SPDX-License-Identifier: Apache-2.0
"""Operator API. Paths are below `/api/v1`; every request carries `Authorization: Bearer TOKEN`; refusals are device.ErrorBody.

viewer   GET  devices?selector=k=v,k2=v2&limit=&after=     -> Page[DeviceView]
         GET  devices/{id}; devices/{id}/history -> History; devices/{id}/results?limit=&after=  -> Page[StoredResult]
         GET  devices/{id}/reports?limit=&after=           -> Page[report.Report]   (newest last; logs of a device)
         GET  fleets, fleets/{name}; models, models/{line}/{model}; rollouts, rollouts/{id}; rollouts/{id}/events
         GET  audit?limit=&after=                          -> Page[AuditEntry]
         GET  summary                                      -> Summary
operator PUT  fleets/{name} FleetSpec; PATCH devices/{id} DevicePatch
         POST enrolment-tokens EnrolmentTokenRequest       -> EnrolmentToken        (shown once)
         HEAD/PUT blobs/{digest}                           upload; the digest is checked before anything is visible
         GET  catalogue/roles/{role}                       -> current signed TUF role metadata (JSON bytes)
         POST catalogue/roles/{role}                       new signed metadata of a release role; hub re-signs snapshot, timestamp
         POST catalogue/root                               next root metadata
         POST rollouts RolloutSpec -> RolloutView; POST rollouts/{id}/{pause|resume|undo} -> RolloutView
admin    POST devices/{id}/revoke; DELETE devices/{id}; POST users UserRequest -> UserToken; GET users; DELETE users/{name}
open     GET  /healthz, /readyz, /metrics, /schema (OpenAPI)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from msgspec import Struct

from skerry.wire.v1.device import BundleRef, Capabilities, KeepWarm, Trial
from skerry.wire.v1.report import HistoryEntry, TrialReport, WorkloadState

T = TypeVar("T")


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    items: tuple[T, ...]
    after: str = ""  # give it back to get the next page; empty on the last


class DeviceWorkload(Struct, frozen=True, kw_only=True):
    """What a device last said of one workload."""

    workload: str
    bundle: str  # name:version of `digest`, when the hub knows it
    digest: str
    state: WorkloadState
    variant: str = ""
    reason: str = ""
    detail: str = ""
    running: str = ""
    at: float = 0.0
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    error_rate: float | None = None


class DeviceView(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    labels: dict[str, str]
    capabilities: Capabilities
    enrolled: float
    last_seen: float | None
    revoked: bool
    workloads: tuple[DeviceWorkload, ...] = ()
    public_key: bytes = b""
    issues: tuple[str, ...] = ()
    assignment_sequence: int = 0


class DevicePatch(Struct, frozen=True, kw_only=True):
    labels: dict[str, str | None] = {}  # None removes


class FleetSpec(Struct, frozen=True, kw_only=True):
    selector: dict[str, str]  # all labels must match; empty = every device


class FleetView(Struct, frozen=True, kw_only=True):
    name: str
    selector: dict[str, str]
    devices: int


class EnrolmentTokenRequest(Struct, frozen=True, kw_only=True):
    labels: dict[str, str] = {}
    ttl_seconds: float = 3600.0


class EnrolmentToken(Struct, frozen=True, kw_only=True):
    token: str
    expires: float


class UserRequest(Struct, frozen=True, kw_only=True):
    name: str
    role: Role


class UserToken(Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    token: str


class UserView(Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    created: float


class ModelView(Struct, frozen=True, kw_only=True):
    bundle: BundleRef
    published: float
    size: int
    variants: tuple[str, ...] = ()
    quarantined: bool = False


class Metric(StrEnum):
    UPDATE_SUCCESS = "update_success"  # committed / resolved, 0..1
    LATENCY_P95_MS = "latency_p95_ms"  # worst of the stage's devices
    ERROR_RATE = "error_rate"  # errors / requests over the stage's devices
    AGREEMENT = "agreement"  # of the trials by shadow: agreed / compared over the stage's devices
    CONFIDENCE_SHIFT = "confidence_shift"  # same: mean change of the top value, either way
    SHADOW_LATENCY_RATIO = "shadow_latency_ratio"  # same: worst p95 to that of the current version
    SHADOW_ERROR_RATE = "shadow_error_rate"  # same: errors / asked
    CANARY_LATENCY_RATIO = "canary_latency_ratio"  # of the trials by canary
    CANARY_ERROR_RATE = "canary_error_rate"


class Gate(Struct, frozen=True, kw_only=True):
    metric: Metric
    min: float | None = None
    max: float | None = None


class OnFailure(StrEnum):
    UNDO = "undo"
    PAUSE = "pause"


class StageSpec(Struct, frozen=True, kw_only=True):
    """Exactly one of count and percent, or neither (the rest). A limit counts the fleet as it is when the stage starts."""

    name: str
    count: int | None = None
    percent: float | None = None
    labels: dict[str, str] = {}
    soak_seconds: float = 0.0  # after every device of the stage has committed, gates are watched this much longer


class RolloutSpec(Struct, frozen=True, kw_only=True):
    workload: str
    bundle: str  # [line/]model:version
    fleet: str = ""
    selector: dict[str, str] = {}
    stages: tuple[StageSpec, ...] = ()  # empty = one stage with everything
    gates: tuple[Gate, ...] = ()
    deadline_seconds: float = 3600.0  # per device from its assignment; silence after that is failure
    device_soak_seconds: float = 30.0  # WorkloadSpec.soak_seconds
    on_failure: OnFailure = OnFailure.UNDO
    trial: Trial | None = None  # WorkloadSpec.trial; gates on its figures are limits on the device too
    keep_warm: KeepWarm = KeepWarm.AUTO


class RolloutStatus(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    UNDOING = "undoing"
    UNDONE = "undone"
    DONE = "done"


class GateResult(Struct, frozen=True, kw_only=True):
    metric: Metric
    measured: float | None
    min: float | None = None
    max: float | None = None
    passed: bool | None = None  # None = nothing measured yet


class StageStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SOAKING = "soaking"
    DONE = "done"
    FAILED = "failed"


class StageView(Struct, frozen=True, kw_only=True):
    name: str
    status: StageStatus
    total: int
    committed: int
    failed: int
    pending: int
    gates: tuple[GateResult, ...] = ()


class RolloutDevice(Struct, frozen=True, kw_only=True):
    device_id: str
    name: str
    stage: int
    state: str  # waiting | assigned | committed | failed | undoing | undone | superseded
    reason: str = ""
    trial: TrialReport | None = None  # as last reported for this rollout


class RolloutView(Struct, frozen=True, kw_only=True):
    id: str
    spec: RolloutSpec
    bundle: BundleRef
    status: RolloutStatus
    reason: str
    created: float
    created_by: str
    finished: float | None
    stages: tuple[StageView, ...]
    devices: tuple[RolloutDevice, ...] = ()


class RolloutEvent(Struct, frozen=True, kw_only=True):
    n: int
    at: float
    kind: str
    detail: str


class StoredResult(Struct, frozen=True, kw_only=True):
    device_id: str
    workload: str
    event_id: str
    at: float
    received: float
    bundle: str
    outputs: dict[str, list[float | int | str | bool]]
    request_id: str = ""


class History(Struct, frozen=True, kw_only=True):
    """Everything an auditor needs to verify a device's chain without trusting the hub."""

    device_id: str
    name: str
    public_key: bytes
    entries: tuple[HistoryEntry, ...]


class AuditEntry(Struct, frozen=True, kw_only=True):
    """Who asked the hub for what. Append-only."""

    n: int
    at: float
    actor: str
    role: str
    action: str
    subject: str
    outcome: str


class Summary(Struct, frozen=True, kw_only=True):
    version: str
    devices: int
    online: int
    models: int
    rollouts_running: int
    results: int
    demo_trust: bool = False
