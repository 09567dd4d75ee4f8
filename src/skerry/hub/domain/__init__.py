# SPDX-License-Identifier: Apache-2.0
"""What the hub knows, as values. No IO, no clock: every time is given by the caller, in seconds since the epoch."""

from __future__ import annotations

from skerry.hub.domain.access import AuditRecord, Lease, Note, User
from skerry.hub.domain.catalogue import BundleRecord, CatalogueFile
from skerry.hub.domain.devices import (
    Desired,
    DesiredWorkload,
    Device,
    EnrolmentTokenRecord,
    Fleet,
    LastWords,
    LatestFigures,
    LatestTrial,
    NewDevice,
    Standing,
    StoredAssignment,
    WorkloadStatus,
    matches,
)
from skerry.hub.domain.rollouts import (
    ACTIVE,
    FleetDevice,
    Member,
    MemberState,
    Outcome,
    RolloutRecord,
    RolloutState,
    Seen,
    StageRecord,
)
from skerry.hub.domain.verdict import Allowed, Refused, Verdict

__all__ = [
    "ACTIVE",
    "Allowed",
    "AuditRecord",
    "BundleRecord",
    "CatalogueFile",
    "Desired",
    "DesiredWorkload",
    "Device",
    "EnrolmentTokenRecord",
    "Fleet",
    "FleetDevice",
    "LastWords",
    "LatestFigures",
    "LatestTrial",
    "Lease",
    "Member",
    "MemberState",
    "NewDevice",
    "Note",
    "Outcome",
    "Refused",
    "RolloutRecord",
    "RolloutState",
    "Seen",
    "StageRecord",
    "Standing",
    "StoredAssignment",
    "User",
    "Verdict",
    "WorkloadStatus",
    "matches",
]
