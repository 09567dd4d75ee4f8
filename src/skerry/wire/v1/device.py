# SPDX-License-Identifier: Apache-2.0
"""Device -> hub: enrolment, tokens, assignment. Paths are below `/device/v1`.

POST enroll              EnrolRequest -> EnrolReply            201; the one-time token is used up
POST token               RFC 7523 form -> TokenReply           200
GET  assignment?wait=S   -> DSSE envelope of an Assignment     200 with ETag, 304, long-poll up to S seconds
POST reports             report.ReportBatch -> report.ReportAck
GET  blobs/{digest}      bytes                                 Range, If-Range, ETag
GET  catalogue/{file}    TUF metadata;  GET catalogue/targets/{path}   TUF targets (OCI manifests, keys)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

ASSIGNMENT_TYPE = "application/vnd.skerry.assignment.v1+json"
"""DSSE payloadType of an assignment."""

ASSIGNMENT_KEYS_TARGET = "hub/assignment-keys.json"
"""TUF target, signed by the offline targets role, that names the keys assignments may be signed with."""

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

LARGEST_SEQUENCE = 2**53
"""No sequence or release number reaches it: above it JSON readers disagree."""


class Accelerator(Struct, frozen=True, kw_only=True):
    kind: str
    name: str = ""
    memory_mib: int = 0


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a device can run; measured by the agent at start."""

    arch: str
    cpus: int
    memory_mib: int
    runtimes: dict[str, str] = {}  # engine name -> version, e.g. {"onnxruntime": "1.31.1"}
    instructions: tuple[str, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    agent_version: str = ""
    os: str = ""


class EnrolRequest(Struct, frozen=True, kw_only=True):
    token: str
    name: str
    public_key: bytes  # Ed25519, 32 raw bytes; the private half never leaves the device
    capabilities: Capabilities
    labels: dict[str, str] = {}


class EnrolReply(Struct, frozen=True, kw_only=True):
    device_id: str
    factory_root: bytes  # TUF root metadata as JSON bytes: the device's bootstrap, kept for good
    audience: str  # `aud` of the device's client assertions
    poll_seconds: float = 30.0


class TokenReply(Struct, frozen=True, kw_only=True):
    access_token: str
    token_type: str
    expires_in: int


class BundleRef(Struct, frozen=True, kw_only=True):
    """Names one immutable bundle. `target` is its path in the catalogue, `digest` that of its OCI manifest."""

    line: str  # product line = TUF delegation `line-<line>`
    model: str
    version: str
    digest: str
    release_seq: int
    target: str

    @property
    def name(self) -> str:
        return f"{self.model}:{self.version}"


def target_path(line: str, model: str, version: str) -> str:
    """Where a bundle's OCI manifest stands in the catalogue."""
    return f"{line}/{model}/{version}.json"


class TrialMode(StrEnum):
    SHADOW = "shadow"  # clients are answered by the current version; the new one gets copies, and only counts leave
    CANARY = "canary"  # the new version answers a share of the requests, and the current one those it fails


class Compare(StrEnum):
    """When two answers agree. Integers, booleans and texts must always be equal."""

    AUTO = "auto"  # top1 for a classifier (labels, task or tolerance of the bundle say so), else close
    TOP1 = "top1"  # the largest value of each row stands in the same place
    CLOSE = "close"  # every value within the tolerance of the current variant


class Trial(Struct, frozen=True, kw_only=True):
    """Before the new version is switched to it runs beside the current one, and has to come up to these limits."""

    mode: TrialMode = TrialMode.SHADOW
    percent: float = 100.0  # of the requests: copied to the new version, or answered by it
    seconds: float = 60.0  # at least this long ...
    longest_seconds: float = 900.0  # ... and until there were enough samples; without them by then it has not passed
    min_samples: int = 20  # requests the new version was asked
    min_agreement: float = 0.98  # of the answers compared; shadow only
    max_error_rate: float = 0.01  # of the requests it was asked
    max_latency_ratio: float | None = None  # its p95 to the current version's, each as its own runner measured it
    max_confidence_shift: float | None = None  # mean change of the top value, either way; shadow only
    compare: Compare = Compare.AUTO


class KeepWarm(StrEnum):
    """Whether the version before stays loaded until the new one has soaked, so that going back takes no time."""

    AUTO = "auto"  # where the memory suffices for both
    NEVER = "never"


class Limits(Struct, frozen=True, kw_only=True):
    """Of one workload's runner. Which mechanism keeps it to them is the device's affair, and in its status."""

    memory_mib: int = 0  # 0 = none
    cpu_share: float = 1.0  # where processors are short: 1.0 = as one busy thread without a limit


class WorkloadSpec(Struct, frozen=True, kw_only=True):
    name: str  # by the rule of bundle names: it becomes a file name on the device
    bundle: BundleRef
    soak_seconds: float = 30.0
    rollout: str = ""  # id of the rollout that asked for it, echoed in reports; empty for a direct assignment
    max_error_rate: float = 0.05  # the device itself undoes a soaking version above this
    max_latency_p95_ms: float | None = None  # same; None = only the hub's gates judge latency
    trial: Trial | None = None  # None = switch right after the self-test
    keep_warm: KeepWarm = KeepWarm.AUTO
    limits: Limits = Limits()


class Assignment(Struct, frozen=True, kw_only=True):
    """Which bundles ONE device shall run. Signed with a key named by ASSIGNMENT_KEYS_TARGET, as a DSSE envelope."""

    device_id: str
    sequence: int  # strictly growing per device
    issued: float
    expires: float
    workloads: tuple[WorkloadSpec, ...] = ()


class AssignmentKey(Struct, frozen=True, kw_only=True):
    keyid: str
    public_key: bytes  # Ed25519, 32 raw bytes


class AssignmentKeys(Struct, frozen=True, kw_only=True):
    """Content of ASSIGNMENT_KEYS_TARGET."""

    keys: tuple[AssignmentKey, ...]


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Body of every refusal of the hub, on both APIs."""

    code: str
    message: str
    hint: str = ""
    fields: dict[str, Any] = {}
