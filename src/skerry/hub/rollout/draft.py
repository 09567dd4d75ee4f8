# SPDX-License-Identifier: Apache-2.0
"""The record while a plan is being written into it. One method per action: its whole meaning stands there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from skerry.hub.domain.rollouts import Member, MemberState, Outcome, RolloutState, StageRecord
from skerry.hub.rollout.actions import (
    AcceptFailure,
    Action,
    AssignDevice,
    FailStage,
    FinishStage,
    MarkDevice,
    Quarantine,
    SetStatus,
    SoakStage,
    StartStage,
    UndoDevice,
    WaiveStage,
)
from skerry.wire.v1.operator import RolloutStatus, StageStatus

_UNDER_WAY = frozenset({StageStatus.RUNNING, StageStatus.SOAKING})
_ENDED = frozenset({RolloutStatus.DONE, RolloutStatus.UNDONE})


class NewEvent(Struct, frozen=True, kw_only=True):
    kind: str
    detail: str


class Draft:
    """Starts as a copy of `state`; `take` every action in order, then read the fields."""

    def __init__(self, state: RolloutState, now: float) -> None:
        self._before = state
        self._now = now
        self.rollout = state.rollout
        self.stages = {stage.index: stage for stage in state.stages}
        self.members = {member.device_id: member for member in state.members}
        self.assigned: list[str] = []
        self.undone: list[str] = []
        self.quarantine = ""
        self._fleet_used = False
        self._events: list[NewEvent] = []

    def take(self, action: Action) -> None:
        _MEANING[type(action)](self, action)

    def state(self) -> RolloutState:
        return replace(
            self._before,
            rollout=self.rollout,
            stages=tuple(self.stages[index] for index in sorted(self.stages)),
            members=tuple(self.members.values()),
            fleet=None if self._fleet_used else self._before.fleet,
        )

    def all_events(self) -> tuple[NewEvent, ...]:
        """Telling many devices at once is one event, not hundreds."""
        told = [NewEvent(kind="assigned", detail=self._names(self.assigned))] if self.assigned else []
        back = [NewEvent(kind="undoing", detail=self._names(self.undone))] if self.undone else []
        return (*self._events, *told, *back)

    def start_stage(self, action: StartStage) -> None:
        self._fleet_used = True
        stage = self._stage(action.stage, status=StageStatus.RUNNING, fleet=action.fleet, started=self._now)
        for device in action.devices:
            self.members[device.device_id] = Member(
                device_id=device.device_id, name=device.name, stage=action.stage, state=MemberState.WAITING
            )
        self._event("stage-started", f"{stage.name}: {len(action.devices)} of {action.fleet} devices")

    def assign_device(self, action: AssignDevice) -> None:
        seen = self._before.seen[action.device_id]
        self._member(
            action.device_id,
            state=MemberState.ASSIGNED,
            previous=seen.desired,
            previous_soak=seen.desired_soak,
            assigned_at=self._now,
        )
        self.assigned.append(action.device_id)

    def mark_device(self, action: MarkDevice) -> None:
        before = self.members[action.device_id]
        resolved = action.outcome is not Outcome.PENDING and action.outcome is not before.outcome
        member = self._member(
            action.device_id,
            state=action.state,
            outcome=action.outcome,
            reason=action.reason,
            resolved_at=self._now if resolved else before.resolved_at,
        )
        self._event(
            action.event or str(action.state), f"{member.name}: {action.reason}" if action.reason else member.name
        )

    def undo_device(self, action: UndoDevice) -> None:
        self._member(action.device_id, state=MemberState.UNDOING, undo_at=self._now)
        self.undone.append(action.device_id)

    def soak_stage(self, action: SoakStage) -> None:
        stage = self._stage(action.stage, status=StageStatus.SOAKING, soak_since=self._now)
        self._event("stage-soaking", stage.name)

    def finish_stage(self, action: FinishStage) -> None:
        stage = self._stage(action.stage, status=StageStatus.DONE, finished=self._now, gates=action.gates)
        self._event("stage-done", stage.name)

    def fail_stage(self, action: FailStage) -> None:
        self._stage(action.stage, status=StageStatus.FAILED, finished=self._now, gates=action.gates)
        self._event("stage-failed", action.reason)

    def waive_stage(self, action: WaiveStage) -> None:
        stage = self._stage(
            action.stage, status=StageStatus.RUNNING, waived=True, soak_since=None, finished=None, gates=()
        )
        self._event("stage-waived", stage.name)

    def accept_failure(self, action: AcceptFailure) -> None:
        member = self._member(action.device_id, accepted=True)
        self._event("failure-accepted", f"{member.name}: {member.reason}")

    def set_status(self, action: SetStatus) -> None:
        undo_started = self.rollout.undo_started
        if action.status is RolloutStatus.UNDOING:
            undo_started = self._now
            self._end_stages_under_way()
        self.rollout = replace(
            self.rollout,
            status=action.status,
            reason=action.reason,
            undo_started=undo_started,
            finished=self._now if action.status in _ENDED else None,
        )
        self._event(str(action.status), action.reason)

    def set_quarantine(self, action: Quarantine) -> None:
        self.quarantine = action.reason
        self._event("quarantined", self.rollout.bundle.digest)

    def _end_stages_under_way(self) -> None:
        for stage in tuple(self.stages.values()):
            if stage.status in _UNDER_WAY:
                self._stage(stage.index, status=StageStatus.FAILED, finished=self._now)

    def _stage(self, index: int, **fields: Any) -> StageRecord:  # noqa: ANN401 - fields of StageRecord, checked by it
        stage = replace(self.stages[index], **fields)
        self.stages[index] = stage
        return stage

    def _member(self, device_id: str, **fields: Any) -> Member:  # noqa: ANN401 - fields of Member, checked by it
        member = replace(self.members[device_id], **fields)
        self.members[device_id] = member
        return member

    def _event(self, kind: str, detail: str) -> None:
        self._events.append(NewEvent(kind=kind, detail=detail))

    def _names(self, device_ids: list[str]) -> str:
        return ", ".join(self.members[device_id].name for device_id in device_ids)


_MEANING: dict[type[Action], Callable[[Draft, Any], None]] = {
    StartStage: Draft.start_stage,
    AssignDevice: Draft.assign_device,
    MarkDevice: Draft.mark_device,
    UndoDevice: Draft.undo_device,
    SoakStage: Draft.soak_stage,
    FinishStage: Draft.finish_stage,
    FailStage: Draft.fail_stage,
    WaiveStage: Draft.waive_stage,
    AcceptFailure: Draft.accept_failure,
    SetStatus: Draft.set_status,
    Quarantine: Draft.set_quarantine,
}
