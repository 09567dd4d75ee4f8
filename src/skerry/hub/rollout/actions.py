# SPDX-License-Identifier: Apache-2.0
"""What a plan may ask for. One plan is one transaction; `changes.changes_of` says what each action writes."""

from __future__ import annotations

from msgspec import Struct

from skerry.hub.domain.rollouts import FleetDevice, MemberState, Outcome
from skerry.wire.v1.operator import GateResult, RolloutStatus


class StartStage(Struct, frozen=True, kw_only=True, tag="start-stage"):
    stage: int
    fleet: int  # devices the stage's selector matches now
    devices: tuple[FleetDevice, ...]  # the chosen ones: waiting from now on


class AssignDevice(Struct, frozen=True, kw_only=True, tag="assign-device"):
    device_id: str


class MarkDevice(Struct, frozen=True, kw_only=True, tag="mark-device"):
    device_id: str
    state: MemberState
    outcome: Outcome
    reason: str = ""
    event: str = ""  # kind of the event; empty = the state's name


class UndoDevice(Struct, frozen=True, kw_only=True, tag="undo-device"):
    device_id: str


class SoakStage(Struct, frozen=True, kw_only=True, tag="soak-stage"):
    stage: int


class FinishStage(Struct, frozen=True, kw_only=True, tag="finish-stage"):
    stage: int
    gates: tuple[GateResult, ...]


class FailStage(Struct, frozen=True, kw_only=True, tag="fail-stage"):
    stage: int
    gates: tuple[GateResult, ...]
    reason: str


class WaiveStage(Struct, frozen=True, kw_only=True, tag="waive-stage"):
    """The operator goes on after a failed stage: its gates on figures no longer stop it."""

    stage: int


class AcceptFailure(Struct, frozen=True, kw_only=True, tag="accept-failure"):
    device_id: str


class SetStatus(Struct, frozen=True, kw_only=True, tag="set-status"):
    status: RolloutStatus
    reason: str


class Quarantine(Struct, frozen=True, kw_only=True, tag="quarantine"):
    reason: str


Action = (
    StartStage
    | AssignDevice
    | MarkDevice
    | UndoDevice
    | SoakStage
    | FinishStage
    | FailStage
    | WaiveStage
    | AcceptFailure
    | SetStatus
    | Quarantine
)


class Plan(Struct, frozen=True, kw_only=True):
    actions: tuple[Action, ...] = ()
