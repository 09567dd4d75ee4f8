# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from contracts.store.values import NOW, assignment, bundle, enrolled, last, put, report, workload
from skerry.errors import NotFound
from skerry.hub.domain import DesiredWorkload
from skerry.hub.store.sql import open_store
from skerry.hub.store.tables import assignments
from skerry.wire.v1.device import Capabilities, KeepWarm, Trial, TrialMode
from skerry.wire.v1.report import DeviceReport, WorkloadState

pytestmark = pytest.mark.anyio


def target(version: int, workload: str = "digits") -> DesiredWorkload:
    plain = DesiredWorkload(workload=workload, bundle=bundle(version), rollout="r-1", soak_seconds=5.0)
    if version == 1:
        return plain
    return replace(plain, trial=Trial(mode=TrialMode.CANARY, percent=5.0), keep_warm=KeepWarm.NEVER)


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
    assert await last(store, "d1") is None
    assert await put(store, assignment("d1", 5, desired_version=4))
    for stale in (0, 4, 6):
        assert not await put(store, assignment("d1", 9), previous=stale)
    assert await last(store, "d1") == assignment("d1", 5, desired_version=4)
    assert (await store.device("d1")).assignment_sequence == 5


async def test_of_replicas_issuing_at_once_exactly_one_wins_each_device(store, database_url):
    other = await open_store(database_url)
    names = [f"d{n}" for n in range(5)]
    await enrolled(store, *names)
    tries = [s.put_assignments([(assignment(name, 1), 0) for name in names]) for s in (store, other, store, other)]
    won = await asyncio.gather(*tries)
    await other.close()
    assert sorted(name for names in won for name in names) == names


async def test_assignments_of_many_devices_are_read_and_stored_together(store):
    await enrolled(store, "d1", "d2", "d3", "d4")
    await store.set_desired("d1", "digits", target(1))
    await store.set_desired("d1", "another", target(2, "another"))
    await store.delete_device("d4", now=NOW)
    await put(store, assignment("d2", 3))
    given = [(assignment("d1", 7, desired_version=2), 0), (assignment("d2", 9), 0), (assignment("d9", 1), 0)]
    assert await store.put_assignments(given) == {"d1"}
    standings = await store.standings(["d1", "d2", "d3", "d4", "d9"])
    assert set(standings) == {"d1", "d2", "d3"}
    assert [one.workload for one in standings["d1"].desired.workloads] == ["another", "digits"]
    assert standings["d1"].desired == await store.desired("d1")
    assert standings["d1"].last == assignment("d1", 7, desired_version=2)
    assert (standings["d2"].sequence, standings["d2"].last) == (3, assignment("d2", 3))
    assert (standings["d3"].sequence, standings["d3"].last, standings["d3"].desired.workloads) == (0, None, ())


async def test_old_assignments_are_dropped_however_far_apart_their_numbers(store):
    await enrolled(store, "d1", "d2")
    await put(store, assignment("d2", 1))
    for n in range(20):
        assert await put(store, assignment("d1", 1000 * (n + 1)), previous=1000 * n)
    newest = [await last(store, name) for name in ("d1", "d2")]
    assert [one.sequence for one in newest if one is not None] == [20_000, 1]
    async with store._db.read() as connection:
        kept = (
            (await connection.execute(select(assignments.c.sequence).order_by(assignments.c.sequence))).scalars().all()
        )
    assert kept == [1, *range(5_000, 21_000, 1000)]


async def test_a_device_that_holds_what_nobody_here_issued_is_to_get_another(store):
    """A hub put back from an old backup: whatever it knows is below the floor of the device."""
    await enrolled(store, "d1")
    await put(store, assignment("d1", 1))
    waiting = asyncio.create_task(store.wait_for_change("d1", seen_version=0, timeout=30))
    await store.add_reports("d1", [report(1, workload(WorkloadState.COMMITTED, sequence=40))], received=NOW)
    assert await asyncio.wait_for(waiting, 10) == 1
    device = await store.device("d1")
    assert (device.assignment_sequence, device.applied_sequence, device.desired_version) == (40, 0, 1)
    (entry,) = await store.audit()
    assert entry.outcome == "ahead: it holds assignment 40, the last one known here is 1"
    await put(store, assignment("d1", 41, desired_version=1), previous=40)
    await store.add_reports("d1", [report(2, workload(WorkloadState.COMMITTED, sequence=41))], received=NOW)
    device = await store.device("d1")
    assert (device.applied_sequence, device.desired_version) == (41, 1)


async def test_a_device_that_refuses_the_number_it_already_follows_is_to_get_another(store):
    """A thief of the hub's key used the very number the hub issued next: the device took the thief's, ours is a fork."""
    await enrolled(store, "d1")
    await put(store, assignment("d1", 7))
    capabilities = Capabilities(arch="x86_64", cpus=1, memory_mib=1)
    fine = DeviceReport(capabilities=capabilities, sequence=7)
    await store.add_reports("d1", [report(1, fine)], received=NOW)
    assert (await store.device("d1")).desired_version == 0
    forked = DeviceReport(capabilities=capabilities, sequence=7, issues=("assignment-refused: forked",))
    await store.add_reports("d1", [report(2, forked)], received=NOW)
    device = await store.device("d1")
    assert (device.assignment_sequence, device.desired_version) == (7, 1)


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
    if not store._db.postgres:
        store._db.recheck_seconds = 0.5  # by itself it looks once a minute
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
