# SPDX-License-Identifier: Apache-2.0
"""Rollouts as values: what is stored of them, and the picture the planner decides on."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from skerry.hub.domain.devices import LatestFigures, LatestTrial, WorkloadStatus
from skerry.wire.v1.device import BundleRef
from skerry.wire.v1.operator import GateResult, RolloutSpec, RolloutStatus, StageStatus

ACTIVE = frozenset({RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.UNDOING})
"""While a rollout is in one of these, no other may touch the same workload of the same devices."""


class MemberState(StrEnum):
    WAITING = "waiting"  # chosen for its stage, not told yet: untouched
    ASSIGNED = "assigned"  # told; no outcome yet
    COMMITTED = "committed"  # reported verified activation, self-test and soak
    FAILED = "failed"  # reported failure, or silent past its deadline
    UNDOING = "undoing"  # told to go back; not confirmed yet, perhaps offline
    UNDONE = "undone"  # confirmed back on what it ran before
    SUPERSEDED = "superseded"  # was to go back, but something newer had taken the workload over


class Outcome(StrEnum):
    """What the update came to, kept while the member is being undone."""

    PENDING = "pending"
    COMMITTED = "committed"
    FAILED = "failed"


class RolloutRecord(Struct, frozen=True, kw_only=True):
    id: str
    spec: RolloutSpec
    selector: dict[str, str]  # of fleet and spec together, resolved at creation; membership itself stays dynamic
    bundle: BundleRef
    status: RolloutStatus
    reason: str = ""
    created: float
    created_by: str
    undo_started: float | None = None
    finished: float | None = None
    version: int = 0  # optimistic lock: grows by one with every write


class StageRecord(Struct, frozen=True, kw_only=True):
    index: int
    name: str
    status: StageStatus = StageStatus.WAITING
    fleet: int = 0  # devices the selector matched when the stage started: what a percentage was taken of
    started: float | None = None
    soak_since: float | None = None
    finished: float | None = None
    waived: bool = False  # an operator resumed it after its gates failed: latency and error gates no longer stop it
    gates: tuple[GateResult, ...] = ()  # as measured when it ended


class Member(Struct, frozen=True, kw_only=True):
    """One device a stage has chosen. `previous` is what it goes back to; None = it ran nothing under this name."""

    device_id: str
    name: str
    stage: int
    state: MemberState = MemberState.WAITING
    outcome: Outcome = Outcome.PENDING
    reason: str = ""
    previous: BundleRef | None = None
    previous_soak: float = 30.0
    assigned_at: float | None = None
    resolved_at: float | None = None
    undo_at: float | None = None
    accepted: bool = False  # an operator resumed the rollout knowing of this failure
    desired_version: int = 0  # of the device, after this rollout last changed it (written by the store)


class Seen(Struct, frozen=True, kw_only=True):
    """What the hub knows about a member now."""

    status: WorkloadStatus | None = None
    figures: LatestFigures | None = None  # for the rollout's digest
    trial: LatestTrial | None = None  # same
    applied_version: int = 0  # desired version the device last said is in force; 0 = unknown
    desired: BundleRef | None = None  # what the device shall run under the workload's name now
    desired_rollout: str = ""  # who set that; empty for nothing or a direct assignment
    desired_soak: float = 30.0
    revoked: bool = False  # revoked or deleted


class FleetDevice(Struct, frozen=True, kw_only=True):
    """A device the selector matches: a candidate for the next stage."""

    device_id: str
    name: str
    labels: dict[str, str]
    desired: BundleRef | None = None
    busy: bool = False  # another active rollout holds this workload of it


class RolloutState(Struct, frozen=True, kw_only=True):
    """One consistent picture. `fleet` is loaded only while the next thing to do is to start a stage."""

    rollout: RolloutRecord
    stages: tuple[StageRecord, ...]
    members: tuple[Member, ...] = ()
    seen: dict[str, Seen] = {}
    fleet: tuple[FleetDevice, ...] | None = None
