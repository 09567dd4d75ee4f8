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


class WorkloadSpec(Struct, frozen=True, kw_only=True):
    name: str  # by the rule of bundle names: it becomes a file name on the device
    bundle: BundleRef
    soak_seconds: float = 30.0
    rollout: str = ""  # id of the rollout that asked for it, echoed in reports; empty for a direct assignment
    max_error_rate: float = 0.05  # the device itself undoes a soaking version above this
    max_latency_p95_ms: float | None = None  # same; None = only the hub's gates judge latency


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
