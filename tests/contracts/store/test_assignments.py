# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from sqlalchemy import select

from contracts.store.values import NOW, assignment, bundle, enrolled, report, workload
from skerry.errors import NotFound, StaleVersion
from skerry.hub.domain import DesiredWorkload
from skerry.hub.store.sql import open_store
from skerry.hub.store.tables import assignments
from skerry.wire.v1.report import WorkloadState

pytestmark = pytest.mark.anyio


def target(version: int, workload: str = "digits") -> DesiredWorkload:
    return DesiredWorkload(workload=workload, bundle=bundle(version), rollout="r-1", soak_seconds=5.0)


async def test_desired_workloads_and_their_version(store):
    await enrolled(store, "d1", "d2")
    assert (await store.desired("d1")).version == 0
    assert await store.set_desired("d1", "faces", target(3, "faces")) == 1
    assert await store.set_desired("d1", "digits", target(1)) == 2
    assert await store.set_desired("d1", "digits", target(2)) == 3
    assert await store.set_desired("d1", "faces", None) == 4
    desired = await store.desired("d1")
    assert (desired.version, desired.workloads) == (4, (target(2),))
    assert (await store.desired("d2")).workloads == ()
    with pytest.raises(NotFound):
        await store.desired("d9")


async def test_the_next_assignment_follows_the_last_one(store):
    await enrolled(store, "d1")
    assert await store.current_assignment("d1") is None
    await store.put_assignment(assignment("d1", 5, desired_version=4), previous=0)
    for stale in (0, 4, 6):
        with pytest.raises(StaleVersion):
            await store.put_assignment(assignment("d1", 9), previous=stale)
    assert await store.current_assignment("d1") == assignment("d1", 5, desired_version=4)
    assert (await store.device("d1")).assignment_sequence == 5


async def test_of_replicas_issuing_one_sequence_exactly_one_wins(store, database_url):
    other = await open_store(database_url)
    await enrolled(store, "d1")
    tries = [s.put_assignment(assignment("d1", 1), previous=0) for s in (store, other, store, other)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    await other.close()
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, StaleVersion) for outcome in outcomes) == 3


async def test_old_assignments_are_dropped_however_far_apart_their_numbers(store):
    await enrolled(store, "d1", "d2")
    await store.put_assignment(assignment("d2", 1), previous=0)
    for n in range(20):
        await store.put_assignment(assignment("d1", 1000 * (n + 1)), previous=1000 * n)
    assert (await store.current_assignment("d1")).sequence == 20_000
    assert (await store.current_assignment("d2")).sequence == 1
    async with store._db.read() as connection:
        kept = (
            (await connection.execute(select(assignments.c.sequence).order_by(assignments.c.sequence))).scalars().all()
        )
    assert kept == [1, *range(5_000, 21_000, 1000)]


async def test_a_device_that_holds_what_nobody_here_issued_is_to_get_another(store):
    """A hub put back from an old backup: whatever it knows is below the floor of the device."""
    await enrolled(store, "d1")
    await store.put_assignment(assignment("d1", 1), previous=0)
    waiting = asyncio.create_task(store.wait_for_change("d1", seen_version=0, timeout=30))
    await store.add_reports("d1", [report(1, workload(WorkloadState.COMMITTED, sequence=40))], received=NOW)
    assert await asyncio.wait_for(waiting, 10) == 1
    device = await store.device("d1")
    assert (device.assignment_sequence, device.applied_sequence, device.desired_version) == (1, 0, 1)
    (entry,) = await store.audit()
    assert entry.outcome == "ahead: it holds assignment 40, the last one known here is 1"
    await store.put_assignment(assignment("d1", 41, desired_version=1), previous=1)
    await store.add_reports("d1", [report(2, workload(WorkloadState.COMMITTED, sequence=41))], received=NOW)
    device = await store.device("d1")
    assert (device.applied_sequence, device.desired_version) == (41, 1)


async def test_waiting_returns_at_once_when_it_has_changed_already_and_after_the_timeout_when_not(store):
    await enrolled(store, "d1")
    await store.set_desired("d1", "digits", target(1))
    assert await store.wait_for_change("d1", seen_version=0, timeout=30) == 1
    assert await store.wait_for_change("d1", seen_version=1, timeout=0.01) == 1
    with pytest.raises(NotFound):
        await store.wait_for_change("d9", seen_version=0, timeout=1)


async def test_a_change_wakes_those_who_wait_for_that_device(store):
    await enrolled(store, "d1", "d2")
    waiting = [asyncio.create_task(store.wait_for_change(d, seen_version=0, timeout=30)) for d in ("d1", "d1", "d2")]
    await asyncio.wait(waiting, timeout=0.05)
    assert await store.set_desired("d1", "digits", target(1)) == 1
    assert await asyncio.wait_for(asyncio.gather(*waiting[:2]), 5) == [1, 1]
    assert not waiting[2].done()
    await store.revoke("d2", now=NOW)
    assert await asyncio.wait_for(waiting[2], 5) == 0


async def test_a_change_by_another_replica_wakes_too(store, database_url):
    other = await open_store(database_url)
    await enrolled(store, "d1")
    waiting = asyncio.create_task(store.wait_for_change("d1", seen_version=0, timeout=30))
    await asyncio.wait([waiting], timeout=0.2)
    await other.set_desired("d1", "digits", target(1))
    assert await asyncio.wait_for(waiting, 10) == 1
    await other.close()


async def test_closing_wakes_everyone(store):
    await enrolled(store, "d1")
    waiting = asyncio.create_task(store.wait_for_change("d1", seen_version=0, timeout=30))
    await asyncio.wait([waiting], timeout=0.05)
    store._db.wakeups.close()
    assert await asyncio.wait_for(waiting, 5) == 0
