# SPDX-License-Identifier: Apache-2.0
"""What only shows between a real hub and a real agent: one of them was away, or knows less than the other."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3

import pytest

from skerry.wire.v1.operator import RolloutStatus
from support.stack import start_stack, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def stack(tmp_path):
    running = start_stack(tmp_path / "stack")
    yield running
    running.close()


def test_a_fleet_follows_a_restored_hub_again(stack):
    """docs/how-to/run-a-hub.md, Back up and restore."""
    agent = stack.add_agent("edge-1")
    v1, v2 = stack.publish(), stack.publish()
    stack.await_rollout(stack.deploy(v1), RolloutStatus.DONE)
    database = stack.folder / "hub" / "hub.sqlite"
    backup = stack.folder / "backup.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as live, contextlib.closing(sqlite3.connect(backup)) as copy:
        live.backup(copy)
    stack.await_rollout(stack.deploy(v2), RolloutStatus.DONE)
    wait_until("v2 serves", lambda: agent.workload().get("committed") == v2)

    stack.hub.kill()
    for leftover in database.parent.glob("hub.sqlite*"):
        leftover.unlink()
    shutil.copy(backup, database)
    stack.hub.start()
    stack.await_ready()
    wait_until("the backup's word counts", lambda: agent.workload().get("committed") == v1)
    assert any(entry.outcome.startswith("ahead: ") for entry in stack.client().newest_audit(limit=100))
    stack.await_rollout(stack.deploy(v2), RolloutStatus.DONE)
    v3 = stack.publish()
    stack.await_rollout(stack.deploy(v3), RolloutStatus.DONE)
    assert agent.status()["issues"] == []


def test_a_device_that_slept_through_a_first_install_and_its_undo_is_undone_when_it_returns(stack):
    """It never ran the bundle and has nothing to remove: only the assignment it holds can prove that it is back."""
    agent = stack.add_agent("edge-1")
    wait_until("the first report", lambda: bool(agent.status()))
    agent.stop()
    rollout = stack.deploy(stack.publish(), deadline_seconds=1.0)
    undone = stack.await_rollout(rollout, RolloutStatus.UNDONE)
    assert [device.state for device in undone.devices] == ["undoing"]
    agent.start()
    wait_until("undone", lambda: stack.client().rollout(rollout.id).devices[0].state == "undone")
    assert agent.workload() == {}
