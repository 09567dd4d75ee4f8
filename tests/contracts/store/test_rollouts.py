# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from msgspec.structs import replace

from contracts.store.values import (
    NOW,
    assignment,
    bundle,
    bundle_record,
    enrolled,
    put,
    report,
    rollout,
    stages,
    workload,
)
from skerry.errors import Conflict, NotFound, StaleVersion
from skerry.hub.domain import DesiredWorkload, MemberState, Outcome
from skerry.hub.rollout.changes import DesiredChange, RolloutChanges, changes_of
from skerry.hub.rollout.draft import NewEvent
from skerry.hub.rollout.planner import plan
from skerry.wire.v1.device import TrialMode
from skerry.wire.v1.operator import RolloutStatus, StageStatus
from skerry.wire.v1.report import DeviceReport, FiguresReport, TrialReport, WorkloadState

pytestmark = pytest.mark.anyio

OLD = DesiredWorkload(workload="digits", bundle=bundle(1), soak_seconds=7.0)


async def started(store, *device_ids, **fields):
    """A rollout of version 2 to devices that run version 1."""
    await enrolled(store, *device_ids)
    for device_id in device_ids:
        await store.set_desired(device_id, "digits", OLD)
    record = rollout(**fields)
    await store.create_rollout(record, stages(record), [NewEvent(kind="created", detail="x")], epoch=0)
    return record


async def step(store, rollout_id="r-1", now=NOW):
    state = await store.rollout_state(rollout_id)
    actions = plan(state, now).actions
    if actions:
        await store.apply_rollout(changes_of(state, actions, now))
    return await store.rollout_state(rollout_id)


async def says(store, device_id, seq, body, now=NOW + 5):
    return await store.add_reports(device_id, [report(seq, body)], received=now)


async def test_what_is_created_is_read_back(store):
    record = await started(store, "d1", "d2", selector={}, created_by="anna")
    assert await store.rollout("r-1") == record
    state = await store.rollout_state("r-1")
    assert (state.rollout, list(state.stages), state.members) == (record, stages(record), ())
    assert [(d.device_id, d.desired, d.busy) for d in state.fleet] == [
        ("d1", bundle(1), False),
        ("d2", bundle(1), False),
    ]
    assert [event.kind for event in await store.rollout_events("r-1")] == ["created"]
    with pytest.raises(NotFound):
        await store.rollout("r-9")
    with pytest.raises(NotFound):
        await store.rollout_state("r-9")


async def test_creation_is_refused_when_another_was_created_meanwhile(store):
    assert await store.rollout_epoch("digits") == 0
    await store.create_rollout(rollout("r-1"), [], [], epoch=0)
    with pytest.raises(StaleVersion):
        await store.create_rollout(rollout("r-2"), [], [], epoch=0)
    with pytest.raises(NotFound):
        await store.rollout("r-2")
    assert await store.rollout_epoch("digits") == 1
    assert await store.rollout_epoch("faces") == 0
    with pytest.raises(Conflict):
        await store.create_rollout(rollout("r-1"), [], [], epoch=1)
    assert await store.rollout_epoch("digits") == 1


async def test_of_creations_at_once_exactly_one_wins(store):
    tries = (store.create_rollout(rollout(f"r-{n}"), [], [], epoch=0) for n in range(5))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert len(await store.rollouts()) == 1


async def test_lists_newest_first_by_status_and_workload(store):
    for n in range(4):
        status = RolloutStatus.DONE if n == 2 else RolloutStatus.RUNNING
        await store.create_rollout(rollout(f"r-{n}", created=NOW + n // 2, status=status), [], [], epoch=n)
    assert [r.id for r in await store.rollouts()] == ["r-3", "r-2", "r-1", "r-0"]
    assert [r.id for r in await store.rollouts(limit=2, after="r-3")] == ["r-2", "r-1"]
    assert [r.id for r in await store.rollouts(statuses=frozenset({RolloutStatus.DONE}))] == ["r-2"]
    assert await store.rollouts(workload="faces") == ()
    assert await store.rollouts_to_plan() == ("r-0", "r-1", "r-3")


async def test_a_stage_starts_and_its_device_is_told_in_the_record_and_in_desired(store):
    await started(store, "d1", "d2")
    state = await step(store)
    assert (state.stages[0].status, state.stages[0].fleet) == (StageStatus.RUNNING, 2)
    assert state.fleet is None
    state = await step(store)
    (member,) = state.members
    assert (member.device_id, member.state, member.previous) == ("d1", MemberState.ASSIGNED, bundle(1))
    assert (member.previous_soak, member.assigned_at, member.desired_version) == (7.0, NOW, 2)
    desired = await store.desired("d1")
    assert desired.version == 2
    assert desired.workloads == (
        DesiredWorkload(workload="digits", bundle=bundle(2), rollout="r-1", soak_seconds=30.0),
    )
    assert (await store.desired("d2")).version == 1
    assert state.seen["d1"].desired_rollout == "r-1"
    assert state.rollout.version == 2


async def test_applying_the_same_plan_twice_changes_nothing_more(store):
    await started(store, "d1", "d2")
    state = await store.rollout_state("r-1")
    changes = changes_of(state, plan(state, NOW).actions, NOW)
    await store.apply_rollout(changes)
    before = await store.rollout_state("r-1")
    with pytest.raises(StaleVersion):
        await store.apply_rollout(changes)
    assert await store.rollout_state("r-1") == before


async def test_of_two_controllers_with_one_picture_exactly_one_writes(store):
    await started(store, "d1", "d2")
    state = await step(store)
    changes = changes_of(state, plan(state, NOW).actions, NOW)
    outcomes = await asyncio.gather(*(store.apply_rollout(changes) for _ in range(4)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert (await store.desired("d1")).version == 2
    events = await store.rollout_events("r-1")
    assert [event.n for event in events] == list(range(1, len(events) + 1))


async def test_a_workload_somebody_else_took_over_stops_the_whole_write(store):
    await started(store, "d1", "d2")
    await step(store)
    state = await store.rollout_state("r-1")
    changes = changes_of(state, plan(state, NOW).actions, NOW)
    await store.set_desired("d1", "digits", replace(OLD, rollout="r-0"))
    with pytest.raises(StaleVersion):
        await store.apply_rollout(changes)
    assert (await store.rollout("r-1")).version == state.rollout.version
    assert [m.state for m in (await store.rollout_state("r-1")).members] == [MemberState.WAITING]


async def test_what_devices_say_is_in_the_picture(store):
    await started(store, "d1")
    await step(store)
    await step(store)
    await put(store, assignment("d1", 1, desired_version=2))
    figures = FiguresReport(
        workload="digits",
        digest=bundle(2).digest,
        window_seconds=2.0,
        requests=10,
        errors=0,
        latency_p50_ms=1.0,
        latency_p95_ms=2.0,
        latency_p99_ms=3.0,
        rollout="r-1",
    )
    await says(store, "d1", 1, workload(WorkloadState.COMMITTED, rollout="r-1", sequence=1))
    await says(store, "d1", 2, figures)
    await says(store, "d1", 3, replace(figures, digest=bundle(1).digest))
    trial = TrialReport(
        workload="digits",
        digest=bundle(2).digest,
        mode=TrialMode.SHADOW,
        finished=False,
        seconds=1.0,
        asked=5,
        errors=0,
        flips={"cat > dog": 2},
        rollout="r-1",
    )
    await says(store, "d1", 4, trial)
    await says(store, "d1", 5, replace(trial, finished=True, asked=10))
    await says(store, "d1", 6, replace(trial, digest=bundle(1).digest))
    seen = (await store.rollout_state("r-1")).seen["d1"]
    assert seen.status.state is WorkloadState.COMMITTED
    assert seen.figures.figures == figures
    assert seen.trial.report == replace(trial, finished=True, asked=10)
    assert (seen.applied_version, seen.desired, seen.revoked) == (2, bundle(2), False)
    await store.revoke("d1", now=NOW)
    assert (await store.rollout_state("r-1")).seen["d1"].revoked


async def test_a_failed_rollout_goes_all_the_way_back(store):
    await store.put_bundle(bundle_record(2))
    await started(store, "d1", "d2")
    await step(store)
    await step(store)
    await says(store, "d1", 1, workload(WorkloadState.UNDONE, rollout="r-1", running=bundle(1).digest))
    for _ in range(4):
        await step(store, now=NOW + 10)
    state = await step(store, now=NOW + 10)
    assert state.rollout.status is RolloutStatus.UNDONE
    assert (state.members[0].state, state.members[0].outcome) == (MemberState.UNDONE, Outcome.FAILED)
    (desired,) = (await store.desired("d1")).workloads
    assert (desired.bundle, desired.rollout, desired.soak_seconds) == (bundle(1), "r-1", 7.0)
    assert (await store.bundle(bundle(2).digest)).quarantined == NOW + 10
    assert await store.rollouts_to_plan() == ()
    kinds = [event.kind for event in await store.rollout_events("r-1")]
    assert kinds == [
        "created",
        "stage-started",
        "assigned",
        "failed",
        "stage-failed",
        "quarantined",
        "undoing",
        "undoing",
        "undone",
        "undone",
    ]


async def test_a_rollout_without_previous_is_undone_by_removing(store):
    await enrolled(store, "d1")
    record = rollout()
    await store.create_rollout(record, stages(record), [], epoch=0)
    await step(store)
    await step(store)
    assert len((await store.desired("d1")).workloads) == 1
    await says(store, "d1", 1, workload(WorkloadState.REFUSED, rollout="r-1", reason="no-fit"))
    await step(store, now=NOW + 10)
    await step(store, now=NOW + 10)
    desired = await store.desired("d1")
    assert (desired.version, desired.workloads) == (2, ())
    await put(store, assignment("d1", 1, desired_version=2))
    body = DeviceReport(capabilities=(await store.device("d1")).capabilities, sequence=1)
    await says(store, "d1", 2, body)
    state = await step(store, now=NOW + 20)
    assert state.members[0].state is MemberState.UNDONE


async def finished(store):
    """Both devices committed; the rollout is done."""
    await started(store, "d1", "d2")
    for n, device_id in enumerate(("d1", "d2")):
        for _ in range(3):
            await step(store, now=NOW + n)
        await says(store, device_id, 1, workload(WorkloadState.COMMITTED, rollout="r-1", running=bundle(2).digest))
    for _ in range(4):
        await step(store, now=NOW + 10)
    assert (await store.rollout("r-1")).status is RolloutStatus.DONE


async def test_a_done_rollout_is_looked_at_again_when_a_device_falls_back(store):
    await finished(store)
    assert await store.rollouts_to_plan() == ()
    await says(store, "d2", 2, workload(WorkloadState.FELL_BACK, rollout="r-1", running=bundle(1).digest))
    assert await store.rollouts_to_plan() == ("r-1",)
    state = await step(store, now=NOW + 30)
    assert state.rollout.status is RolloutStatus.PAUSED


async def test_a_fall_back_of_what_something_newer_replaced_concerns_nobody(store):
    await finished(store)
    await store.set_desired("d2", "digits", replace(OLD, bundle=bundle(3), rollout="r-2"))
    await says(store, "d2", 2, workload(WorkloadState.FELL_BACK, rollout="r-1", running=bundle(1).digest))
    assert await store.rollouts_to_plan() == ()


async def test_an_undone_rollout_is_looked_at_until_everyone_is_back(store):
    record = await started(store, "d1")
    await step(store)
    state = await step(store)
    member = replace(state.members[0], state=MemberState.UNDOING, undo_at=NOW)
    ended = replace(state.rollout, status=RolloutStatus.UNDONE, version=state.rollout.version + 1)
    await store.apply_rollout(RolloutChanges(rollout=ended, at=NOW, members=(member,)))
    assert await store.rollouts_to_plan() == (record.id,)


async def test_a_fleet_leaves_out_the_gone_and_marks_the_busy(store):
    await enrolled(store, "d1", "d2", "d3", "d4", site="kiel")
    await enrolled(store, "d5", site="bonn")
    await store.revoke("d2", now=NOW)
    await store.delete_device("d3", now=NOW)
    first = rollout("r-1", selector={"site": "kiel"})
    await store.create_rollout(first, stages(first), [], epoch=0)
    await step(store, "r-1")
    second = rollout("r-2", selector={"site": "kiel"})
    await store.create_rollout(second, stages(second), [], epoch=1)
    state = await store.rollout_state("r-2")
    assert [(device.device_id, device.busy) for device in state.fleet] == [("d1", True), ("d4", False)]


async def test_a_rollout_holds_its_members_and_while_active_whatever_it_may_yet_take(store):
    await started(store, "d1", "d2")
    assert await store.rollout_devices("r-1") == {"d1", "d2"}
    state = await step(store)
    ended = replace(state.rollout, status=RolloutStatus.DONE, version=state.rollout.version + 1)
    await store.apply_rollout(RolloutChanges(rollout=ended, at=NOW))
    assert await store.rollout_devices("r-1") == {"d1"}


async def test_an_applied_plan_wakes_the_devices_it_concerns(store):
    await started(store, "d1", "d2")
    await step(store)
    waiting = [asyncio.create_task(store.wait_for_change(d, seen_version=1, timeout=30)) for d in ("d1", "d2")]
    await asyncio.wait(waiting, timeout=0.1)
    await step(store)
    assert await asyncio.wait_for(waiting[0], 1) == 2
    assert not waiting[1].done()
    waiting[1].cancel()


async def test_many_devices_in_one_write(store):
    ids = [f"d{n:04}" for n in range(300)]
    for device_id in ids:
        await enrolled(store, device_id)
    record = rollout(spec=replace(rollout().spec, stages=()))
    await store.create_rollout(record, [replace(stages(rollout())[0], name="all")], [], epoch=0)
    await step(store)
    state = await step(store)
    assert {member.state for member in state.members} == {MemberState.ASSIGNED}
    assert len(state.members) == 300
    change = DesiredChange(
        device_id="d0299", workload="digits", bundle=None, rollout="r-1", soak_seconds=1.0, expected="someone else"
    )
    late = replace(state.rollout, version=state.rollout.version + 1)
    with pytest.raises(StaleVersion):
        await store.apply_rollout(RolloutChanges(rollout=late, at=NOW, desired=(change,)))
