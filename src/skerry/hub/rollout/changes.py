# SPDX-License-Identifier: Apache-2.0
"""What a plan means for the record: rows to write, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from skerry.hub.domain.rollouts import Member, RolloutRecord, RolloutState, StageRecord
from skerry.hub.rollout.actions import Action
from skerry.hub.rollout.draft import Draft, NewEvent
from skerry.hub.rollout.trials import trial_in_force
from skerry.wire.v1.device import BundleRef, KeepWarm, Trial

__all__ = ["DesiredChange", "NewEvent", "RolloutChanges", "after", "changes_of"]


class DesiredChange(Struct, frozen=True, kw_only=True):
    """Give a device's workload another bundle (None = remove it), unless someone else than `expected` set it meanwhile."""

    device_id: str
    workload: str
    bundle: BundleRef | None
    rollout: str
    soak_seconds: float
    trial: Trial | None = None
    keep_warm: KeepWarm = KeepWarm.AUTO
    expected: str  # rollout that must own the workload now; empty = nobody, or a direct assignment


class RolloutChanges(Struct, frozen=True, kw_only=True):
    """Applied wholly, or not at all when `rollout.version - 1` is no longer the stored version."""

    rollout: RolloutRecord  # already carries the new version
    at: float
    stages: tuple[StageRecord, ...] = ()  # rows that are new or differ
    members: tuple[Member, ...] = ()  # rows that are new or differ
    desired: tuple[DesiredChange, ...] = ()
    quarantine: str = ""  # why the rollout's digest goes into quarantine; empty = it does not
    events: tuple[NewEvent, ...] = ()


def after(state: RolloutState, actions: Sequence[Action], now: float) -> RolloutState:
    """The state once the actions are applied, as far as the rollout's own record goes (not what devices answer)."""
    return _drafted(state, actions, now).state()


def changes_of(state: RolloutState, actions: Sequence[Action], now: float) -> RolloutChanges:
    draft = _drafted(state, actions, now)
    before_stages = {stage.index: stage for stage in state.stages}
    before_members = {member.device_id: member for member in state.members}
    return RolloutChanges(
        rollout=replace(draft.rollout, version=state.rollout.version + 1),
        at=now,
        stages=tuple(stage for stage in draft.stages.values() if before_stages.get(stage.index) != stage),
        members=tuple(m for m in draft.members.values() if before_members.get(m.device_id) != m),
        desired=(
            *(_assignment(state, draft.members[device_id]) for device_id in draft.assigned),
            *(_return(state, draft.members[device_id]) for device_id in draft.undone),
        ),
        quarantine=draft.quarantine,
        events=draft.all_events(),
    )


def _drafted(state: RolloutState, actions: Sequence[Action], now: float) -> Draft:
    draft = Draft(state, now)
    for action in actions:
        draft.take(action)
    return draft


def _assignment(state: RolloutState, member: Member) -> DesiredChange:
    rollout = state.rollout
    return DesiredChange(
        device_id=member.device_id,
        workload=rollout.spec.workload,
        bundle=rollout.bundle,
        rollout=rollout.id,
        soak_seconds=rollout.spec.device_soak_seconds,
        trial=trial_in_force(rollout.spec),
        keep_warm=rollout.spec.keep_warm,
        expected=state.seen[member.device_id].desired_rollout,
    )


def _return(state: RolloutState, member: Member) -> DesiredChange:
    rollout = state.rollout
    return DesiredChange(
        device_id=member.device_id,
        workload=rollout.spec.workload,
        bundle=member.previous,
        rollout=rollout.id,
        soak_seconds=member.previous_soak,
        keep_warm=rollout.spec.keep_warm,
        expected=rollout.id,
    )
