# SPDX-License-Identifier: Apache-2.0
"""Devices, what they shall run (desired) and what they last said they run (status)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from skerry.wire.v1.device import BundleRef, Capabilities, KeepWarm, Trial
from skerry.wire.v1.report import FiguresReport, TrialReport, WorkloadState


class NewDevice(Struct, frozen=True, kw_only=True):
    """A device at the moment of its enrolment."""

    id: str
    name: str
    labels: dict[str, str]
    public_key: bytes
    capabilities: Capabilities
    enrolled: float


class Device(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    labels: dict[str, str]
    public_key: bytes
    capabilities: Capabilities
    enrolled: float
    last_seen: float | None = None
    revoked: float | None = None  # since when
    deleted: float | None = None  # since when; its history and reports stay
    issues: tuple[str, ...] = ()  # as the device reported, then what the hub found wrong with its history
    report_n: int = 0  # reports stored of it, from all its outboxes
    desired_version: int = 0  # grows by one with every change of what it shall run
    assignment_sequence: int = 0  # of the last assignment issued; 0 = none yet
    applied_sequence: int = 0  # of the assignment the device last said is in force


class EnrolmentTokenRecord(Struct, frozen=True, kw_only=True):
    token_hash: bytes  # SHA-256 of the token; the token itself is never stored
    labels: dict[str, str]  # put on the device; they win over the labels the device asks for
    created: float
    created_by: str
    expires: float
    used: float | None = None
    device_id: str = ""


class Fleet(Struct, frozen=True, kw_only=True):
    name: str
    selector: dict[str, str]


class DesiredWorkload(Struct, frozen=True, kw_only=True):
    workload: str
    bundle: BundleRef
    rollout: str = ""  # who asked for it; empty for a direct assignment
    soak_seconds: float = 30.0
    trial: Trial | None = None
    keep_warm: KeepWarm = KeepWarm.AUTO


class Desired(Struct, frozen=True, kw_only=True):
    """Everything one device shall run, at one `version`. An assignment is a signed copy of it."""

    device_id: str
    version: int
    workloads: tuple[DesiredWorkload, ...]  # ordered by name


class StoredAssignment(Struct, frozen=True, kw_only=True):
    device_id: str
    sequence: int
    desired_version: int  # what it was made from
    envelope: bytes  # DSSE, as served
    issued: float
    expires: float


class Standing(Struct, frozen=True, kw_only=True):
    """All that decides whether a device is to be issued another assignment."""

    desired: Desired
    sequence: int  # of the last assignment issued; 0 = none yet
    last: StoredAssignment | None = None  # that one


class WorkloadStatus(Struct, frozen=True, kw_only=True):
    """What a device last said of one workload (wire: WorkloadReport), and when the hub received it."""

    device_id: str
    workload: str
    digest: str
    state: WorkloadState
    variant: str = ""
    rollout: str = ""
    reason: str = ""
    detail: str = ""
    running: str = ""
    sequence: int = 0
    at: float = 0.0
    received: float = 0.0


class LatestFigures(Struct, frozen=True, kw_only=True):
    """The last window of figures a device reported for one digest of one workload."""

    device_id: str
    at: float
    received: float
    figures: FiguresReport


class LatestTrial(Struct, frozen=True, kw_only=True):
    """What a device last said of a trial of one digest of one workload."""

    device_id: str
    at: float
    received: float
    report: TrialReport


class LastWords(Struct, frozen=True, kw_only=True):
    """What a device last said."""

    statuses: tuple[WorkloadStatus, ...] = ()
    figures: tuple[LatestFigures, ...] = ()


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Every label of the selector is there with the same value; the empty selector matches every device."""
    return all(labels.get(key) == value for key, value in selector.items())
