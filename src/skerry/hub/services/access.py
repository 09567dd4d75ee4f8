# SPDX-License-Identifier: Apache-2.0
"""Who may do what: one table from action to the least role, and nothing else decides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from skerry.wire.v1.operator import Role


class Action(StrEnum):
    """Every operation of the operator API, as it stands in the audit log."""

    READ_DEVICES = "read devices"
    READ_FLEETS = "read fleets"
    READ_MODELS = "read models"
    READ_ROLLOUTS = "read rollouts"
    READ_AUDIT = "read the audit log"
    READ_SUMMARY = "read the summary"
    SET_FLEET = "set a fleet"
    LABEL_DEVICE = "label a device"
    MAKE_ENROLMENT_TOKEN = "make an enrolment token"  # noqa: S105 - an action, not a secret
    UPLOAD_BLOB = "upload a blob"
    READ_CATALOGUE_ROLE = "read a catalogue role"
    PUBLISH = "publish catalogue metadata"
    START_ROLLOUT = "start a rollout"
    STEER_ROLLOUT = "steer a rollout"
    REVOKE_DEVICE = "revoke a device"
    DELETE_DEVICE = "delete a device"
    MAKE_USER = "make a user"
    READ_USERS = "read users"
    DELETE_USER = "delete a user"


LEAST_ROLE: dict[Action, Role] = {
    Action.READ_DEVICES: Role.VIEWER,
    Action.READ_FLEETS: Role.VIEWER,
    Action.READ_MODELS: Role.VIEWER,
    Action.READ_ROLLOUTS: Role.VIEWER,
    Action.READ_AUDIT: Role.VIEWER,
    Action.READ_SUMMARY: Role.VIEWER,
    Action.SET_FLEET: Role.OPERATOR,
    Action.LABEL_DEVICE: Role.OPERATOR,
    Action.MAKE_ENROLMENT_TOKEN: Role.OPERATOR,
    Action.UPLOAD_BLOB: Role.OPERATOR,
    Action.READ_CATALOGUE_ROLE: Role.OPERATOR,
    Action.PUBLISH: Role.OPERATOR,
    Action.START_ROLLOUT: Role.OPERATOR,
    Action.STEER_ROLLOUT: Role.OPERATOR,
    Action.REVOKE_DEVICE: Role.ADMIN,
    Action.DELETE_DEVICE: Role.ADMIN,
    Action.MAKE_USER: Role.ADMIN,
    Action.READ_USERS: Role.ADMIN,
    Action.DELETE_USER: Role.ADMIN,
}

_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """Go on."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Stop, and say why."""

    reason: str


def decide_access(role: Role, action: Action | None) -> Allowed | Refused:
    """A person has exactly one role, so there is nothing to add up. An operation without an action is for nobody."""
    least = LEAST_ROLE.get(action) if action is not None else None
    if least is None:
        return Refused(reason="this operation is not in the table of permissions")
    if _RANK[role] < _RANK[least]:
        return Refused(reason=f"needs role {least}")
    return Allowed()
