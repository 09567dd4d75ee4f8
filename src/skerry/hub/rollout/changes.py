# SPDX-License-Identifier: Apache-2.0
"""What a plan means for the record: rows to write, all in one transaction."""

from __future__ import annotations

from msgspec import Struct

from skerry.hub.domain.rollouts import Member, RolloutRecord, StageRecord
from skerry.wire.v1.device import BundleRef


class DesiredChange(Struct, frozen=True, kw_only=True):
    """Give a device's workload another bundle (None = remove it), unless someone else than `expected` set it meanwhile."""

    device_id: str
    workload: str
    bundle: BundleRef | None
    rollout: str
    soak_seconds: float
    expected: str  # rollout that must own the workload now; empty = nobody, or a direct assignment


class NewEvent(Struct, frozen=True, kw_only=True):
    kind: str
    detail: str


class RolloutChanges(Struct, frozen=True, kw_only=True):
    """Applied wholly, or not at all when `rollout.version - 1` is no longer the stored version."""

    rollout: RolloutRecord  # already carries the new version
    at: float
    stages: tuple[StageRecord, ...] = ()  # rows that are new or differ
    members: tuple[Member, ...] = ()  # rows that are new or differ
    desired: tuple[DesiredChange, ...] = ()
    quarantine: str = ""  # why the rollout's digest goes into quarantine; empty = it does not
    events: tuple[NewEvent, ...] = ()
