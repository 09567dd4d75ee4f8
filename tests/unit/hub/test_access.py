# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.hub.services.access import LEAST_ROLE, Action, Allowed, Refused, decide_access
from skerry.wire.v1.operator import Role


def test_every_action_has_a_least_role():
    assert set(LEAST_ROLE) == set(Action)


@pytest.mark.parametrize("action", list(Action))
def test_a_higher_role_may_all_a_lower_may(action):
    allowed = [isinstance(decide_access(role, action), Allowed) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)]
    assert allowed == sorted(allowed)
    assert allowed[-1]


def test_an_operation_without_an_action_is_for_nobody():
    assert isinstance(decide_access(Role.ADMIN, None), Refused)


def test_viewer_changes_nothing_and_operator_makes_no_users():
    reading = {action for action in Action if action.value.startswith("read ")}
    assert {action for action in Action if isinstance(decide_access(Role.VIEWER, action), Allowed)} < reading
    for action in (Action.MAKE_USER, Action.DELETE_USER, Action.REVOKE_DEVICE, Action.DELETE_DEVICE, Action.READ_USERS):
        assert decide_access(Role.OPERATOR, action) == Refused(reason="needs role admin")
