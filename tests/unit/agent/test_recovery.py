# SPDX-License-Identifier: Apache-2.0
"""A record told again by history is the record as it was, as far as it matters for serving and for what failed."""

from __future__ import annotations

import msgspec
import pytest

from skerry.agent.recovery import recovered
from skerry.agent.state import WorkloadRecord
from skerry.wire.v1.report import HistoryEntry
from support.agent_world import World


def history(world: World) -> list[HistoryEntry]:
    """What the real ledger makes of what was emitted."""
    told = [pending for _, record in world.ledger.said for pending in record.pending if pending.kind]
    return [
        HistoryEntry(n=n, at=each.at, kind=each.kind, fields=each.fields, previous="", hash="", signature=b"")
        for n, each in enumerate(told, 1)
    ]


def essence(record: WorkloadRecord) -> WorkloadRecord:
    """Without what history does not know, or what only an attempt needs."""
    kept = msgspec.structs.replace(record, revision=0, attempt=None, refusal=None, pending=())
    return msgspec.structs.replace(kept, confirmed=0)


def updated(world: World, *versions: int) -> World:
    for version in versions:
        world.assign(world.publisher.refs[version - 1])
        world.rounds()
    return world


def test_after_updates_the_committed_version_the_one_before_and_the_port():
    world = updated(World(), 1, 2)
    assert recovered(history(world), "w0") == msgspec.structs.replace(essence(world.records.get("w0")), confirmed=2)


def test_after_a_failure_it_is_still_remembered():
    world = updated(World(), 1)
    world.runners.bad = {world.publisher.refs[1].digest}
    updated(world, 2)
    found = recovered(history(world), "w0")
    assert found is not None
    assert essence(found) == essence(world.records.get("w0"))
    assert found.failure(world.publisher.refs[1].digest) is not None


def test_after_a_fall_back_the_version_before():
    world = updated(World(), 1, 2)
    world.runners.crash("w0")
    world.runners.looping = {"w0"}
    world.rounds()
    found = recovered(history(world), "w0")
    assert found is not None
    assert essence(found) == essence(world.records.get("w0"))


def test_an_attempt_taken_back_for_another_is_held_against_nobody():
    world = updated(World(), 1)
    world.assign(world.publisher.refs[1], soak=1e6)
    world.rounds(5)
    updated(world, 1)
    assert world.states(world.publisher.refs[1])[-1] == "undone"
    found = recovered(history(world), "w0")
    assert found is not None
    assert found.failed == ()


def test_nothing_where_nothing_is_committed():
    world = updated(World(), 1)
    assert recovered(history(world), "other") is None
    world.assign()
    world.rounds()
    assert recovered(history(world), "w0") is None


@pytest.mark.parametrize("field", ["target", "digest"])
def test_nothing_from_a_history_that_does_not_say_enough(field):
    entries = history(updated(World(), 1))
    for entry in entries:
        entry.fields.pop(field)
    assert recovered(entries, "w0") is None
