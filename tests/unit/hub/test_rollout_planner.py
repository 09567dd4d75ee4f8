# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from skerry.hub.domain import MemberState, Refused
from skerry.hub.rollout.planner import BATCH, plan
from skerry.hub.rollout.verbs import Verb, command
from skerry.hub.rollout.view import view
from skerry.wire.v1.operator import Gate, Metric, OnFailure, RolloutSpec, RolloutStatus, StageSpec, StageStatus
from unit.hub.rollout_world import Nature, World, bundle, fleet

THREE = (
    StageSpec(name="canary", count=1, soak_seconds=20),
    StageSpec(name="tenth", percent=10),
    StageSpec(name="rest"),
)


def spec(**fields: object) -> RolloutSpec:
    base = {"workload": "digits", "bundle": "digits:2.0", "stages": THREE, "deadline_seconds": 600.0}
    return RolloutSpec(**{**base, **fields})  # type: ignore[arg-type]


def test_healthy_fleet_ends_done_stage_by_stage():
    world = World(fleet(50), spec())
    world.tick()
    assert world.touched() == {"d0000"}
    world.advance(10)
    world.tick()
    assert world.stages[0].status is StageStatus.SOAKING
    world.advance(19)
    world.tick()
    assert world.touched() == {"d0000"}
    world.advance(1)
    world.tick()
    assert len(world.touched()) == 6
    world.run(seconds=200)
    assert world.status() is RolloutStatus.DONE
    assert len(world.in_state(MemberState.COMMITTED)) == 50
    assert [stage.fleet for stage in world.stages.values()] == [50, 50, 50]


def test_five_hundred_devices_in_a_moment():
    began = time.perf_counter()
    devices = fleet(500)
    devices[400].nature = Nature.SILENT
    world = World(devices, spec(gates=(Gate(metric=Metric.LATENCY_P95_MS, max=50),)))
    world.run(seconds=4000)
    assert world.status() is RolloutStatus.UNDONE
    assert "edge-0400 (silent)" in world.rollout.reason
    assert world.rollout.reason.endswith("not confirmed back: edge-0400")
    assert len(world.in_state(MemberState.UNDONE)) == 499
    assert all(device.desired == bundle(1) for device in world.devices.values())
    assert time.perf_counter() - began < 5


def test_one_failed_device_stops_the_rollout_when_no_gate_says_otherwise():
    devices = fleet(20)
    devices[1].nature = Nature.FAILS
    world = World(devices, spec(stages=(StageSpec(name="half", percent=50), StageSpec(name="rest"))))
    world.run(seconds=300)
    assert world.status() is RolloutStatus.UNDONE
    assert len(world.touched()) == 10
    assert world.in_state(MemberState.UNDONE) == world.touched()
    assert world.quarantined.startswith("rollout r-1: stage half: update_success")
    assert all(device.running == bundle(1).digest for device in world.devices.values())


def test_fails_early_when_the_gate_cannot_be_met_any_more():
    devices = fleet(10, delay=500.0)
    devices[0].nature = devices[1].nature = Nature.FAILS
    devices[0].delay = devices[1].delay = 10.0
    world = World(devices, spec(stages=(), gates=(Gate(metric=Metric.UPDATE_SUCCESS, min=0.9),)))
    world.run(seconds=10, step=10)
    assert world.status() is RolloutStatus.UNDOING


def test_failures_within_the_gate_are_tolerated():
    devices = fleet(10)
    devices[3].nature = Nature.REFUSES
    world = World(devices, spec(stages=(), gates=(Gate(metric=Metric.UPDATE_SUCCESS, min=0.9),)))
    world.run(seconds=100)
    assert world.status() is RolloutStatus.DONE
    assert world.members["d0003"].reason == "refused"


def test_silence_past_the_deadline_is_failure_and_not_before():
    devices = fleet(3)
    devices[2].nature = Nature.SILENT
    world = World(devices, spec(stages=()))
    world.run(seconds=595)
    assert world.status() is RolloutStatus.RUNNING
    world.run(seconds=5)
    assert world.members["d0002"].reason == "silent"
    assert world.status() is RolloutStatus.UNDOING


def test_offline_device_stays_undoing_until_it_reports_even_after_the_rollout_has_ended():
    devices = fleet(3)
    devices[0].nature = Nature.FAILS
    devices[1].nature = Nature.DEAF
    devices[1].back_at = 1_800_005_000.0
    world = World(devices, spec(stages=()))
    world.run(seconds=3000)
    assert world.status() is RolloutStatus.UNDONE
    assert "not confirmed back: edge-0001" in world.rollout.reason
    assert world.in_state(MemberState.UNDOING) == {"d0001"}
    world.advance(5000)
    world.tick()
    assert world.in_state(MemberState.UNDOING) == set()


def test_a_device_that_committed_unheard_is_back_only_when_it_says_so():
    devices = fleet(2)
    devices[0].nature = Nature.FAILS
    devices[1].nature = Nature.SILENT  # runs version 2, nobody knows
    devices[1].back_at = 1_800_000_100.0
    world = World(devices, spec(stages=()))
    world.run(seconds=50)
    assert devices[1].running == bundle(2).digest
    assert world.in_state(MemberState.UNDOING) == {"d0001"}
    world.run(seconds=100)
    assert devices[1].running == bundle(1).digest
    assert world.status() is RolloutStatus.UNDONE
    assert world.in_state(MemberState.UNDOING) == set()


def test_too_slow_a_version_is_caught_and_undone():
    devices = fleet(5)
    devices[0].latency = 80.0
    world = World(devices, spec(gates=(Gate(metric=Metric.LATENCY_P95_MS, max=50),)))
    world.run(seconds=400)
    assert world.status() is RolloutStatus.UNDONE
    assert world.rollout.reason == "stage canary: latency_p95_ms 80 > 50: edge-0000"
    assert world.touched() == {"d0000"}
    assert devices[0].running == bundle(1).digest


def test_too_many_errors_over_the_stage_are_caught():
    devices = fleet(4, errors=3)
    world = World(devices, spec(stages=(), gates=(Gate(metric=Metric.ERROR_RATE, max=0.02),)))
    world.run(seconds=400)
    assert world.status() is RolloutStatus.UNDONE
    assert "error_rate 0.03 > 0.02" in world.rollout.reason


def test_a_stage_never_passes_a_figures_gate_without_figures():
    devices = fleet(1)
    world = World(devices, spec(stages=(), gates=(Gate(metric=Metric.LATENCY_P95_MS, max=50),)))
    world.tick()
    world.advance(10)
    devices[0].figures.clear()
    world.tick()
    assert world.in_state(MemberState.COMMITTED) == {"d0000"}
    assert world.stages[0].status is StageStatus.RUNNING
    world.now += 600
    world.tick()
    assert world.status() is RolloutStatus.UNDOING
    assert world.rollout.reason == "stage all: no figures from edge-0000"


def test_figures_of_the_old_version_do_not_count():
    devices = fleet(1)
    world = World(devices, spec(stages=(), gates=(Gate(metric=Metric.LATENCY_P95_MS, max=50),)))
    world.tick()
    world.advance(9)
    assert view(world.state()).stages[0].gates[1].measured is None
    world.advance(1)
    assert view(world.state()).stages[0].gates[1].measured == 5.0


def test_a_fall_back_in_an_earlier_stage_stops_a_later_one():
    devices = fleet(30)
    devices[0].falls_back_at = 1_800_000_050.0
    world = World(devices, spec(stages=(StageSpec(name="canary", count=1), StageSpec(name="rest"))))
    for device in devices[1:]:
        device.delay = 100.0
    world.run(seconds=300)
    assert world.status() is RolloutStatus.UNDONE
    assert "fell-back" in world.kinds()
    assert all(device.desired == bundle(1) for device in devices)


def test_a_fall_back_after_the_end_reopens_the_record_and_asks():
    devices = fleet(3)
    devices[1].falls_back_at = 1_800_010_000.0
    world = World(devices, spec(stages=()))
    world.run(seconds=100)
    assert world.status() is RolloutStatus.DONE
    world.advance(20_000)
    world.tick()
    assert world.status() is RolloutStatus.PAUSED
    assert world.rollout.reason.startswith("re-opened: ")
    assert world.members["d0001"].state is MemberState.FAILED
    assert not world.quarantined
    world.say(Verb.UNDO)
    world.run(seconds=100)
    assert world.status() is RolloutStatus.UNDONE
    assert world.quarantined


def test_reopened_and_accepted_is_done_again():
    devices = fleet(3)
    devices[1].falls_back_at = 1_800_010_000.0
    world = World(devices, spec(stages=()))
    world.run(seconds=100)
    world.advance(20_000)
    world.tick()
    world.say(Verb.RESUME)
    world.tick()
    assert world.status() is RolloutStatus.DONE
    assert world.members["d0001"].accepted


def test_pause_holds_the_next_stage_but_hears_reports():
    world = World(fleet(10), spec(stages=(StageSpec(name="one", count=1), StageSpec(name="rest"))))
    world.tick()
    world.say(Verb.PAUSE)
    world.run(seconds=100)
    assert world.in_state(MemberState.COMMITTED) == {"d0000"}
    assert world.touched() == {"d0000"}
    world.say(Verb.RESUME)
    world.run(seconds=100)
    assert world.status() is RolloutStatus.DONE


def test_a_pause_never_holds_back_the_undo():
    devices = fleet(2, delay=20.0)
    devices[0].nature = Nature.FAILS
    world = World(devices, spec(stages=()))
    world.tick()
    world.say(Verb.PAUSE)
    world.run(seconds=100)
    assert world.status() is RolloutStatus.UNDONE


def test_on_failure_pause_waits_for_the_operator_and_resume_accepts():
    devices = fleet(4)
    devices[0].nature = Nature.FAILS
    stages = (StageSpec(name="half", percent=50), StageSpec(name="rest"))
    world = World(devices, spec(stages=stages, on_failure=OnFailure.PAUSE))
    world.run(seconds=100)
    assert world.status() is RolloutStatus.PAUSED
    assert world.stages[0].status is StageStatus.FAILED
    assert not world.quarantined
    world.say(Verb.RESUME)
    world.run(seconds=100)
    assert world.status() is RolloutStatus.DONE
    assert len(world.in_state(MemberState.COMMITTED)) == 3
    assert "failure-accepted" in world.kinds()


def test_resume_waives_a_latency_gate_for_that_stage_only():
    devices = fleet(2, latency=80.0)
    stages = (StageSpec(name="one", count=1), StageSpec(name="rest"))
    gates = (Gate(metric=Metric.LATENCY_P95_MS, max=50),)
    world = World(devices, spec(stages=stages, gates=gates, on_failure=OnFailure.PAUSE))
    world.run(seconds=100)
    assert world.status() is RolloutStatus.PAUSED
    world.say(Verb.RESUME)
    world.run(seconds=100)
    assert world.status() is RolloutStatus.PAUSED
    assert world.rollout.reason == "stage rest: latency_p95_ms 80 > 50: edge-0001"


def test_undo_of_a_finished_healthy_rollout_brings_all_back_without_quarantine():
    world = World(fleet(5), spec())
    world.run(seconds=400)
    world.say(Verb.UNDO)
    world.run(seconds=100)
    assert world.status() is RolloutStatus.UNDONE
    assert world.rollout.reason == "undone by anna"
    assert not world.quarantined
    assert {device.running for device in world.devices.values()} == {bundle(1).digest}


def test_undo_leaves_alone_what_something_newer_took_over():
    world = World(fleet(2), spec(stages=()))
    world.run(seconds=100)
    device = world.devices["d0000"]
    device.desired, device.desired_rollout, device.desired_version = bundle(3), "r-2", 9
    world.say(Verb.UNDO)
    world.run(seconds=100)
    assert device.desired == bundle(3)
    assert world.members["d0000"].state is MemberState.SUPERSEDED
    assert world.status() is RolloutStatus.UNDONE


def test_a_first_install_is_undone_by_removing_it():
    devices = fleet(2)
    world = World(devices, spec(stages=()))
    for device in devices:
        device.desired, device.status, device.running = None, None, ""
        device.desired_version, device.applied, device.told = 0, 0, 0
    world.run(seconds=50)
    assert world.status() is RolloutStatus.DONE
    world.say(Verb.UNDO)
    world.run(seconds=50)
    assert world.status() is RolloutStatus.UNDONE
    assert all(device.desired is None and not device.running for device in devices)


def test_late_success_corrects_a_verdict_of_the_clock():
    devices = fleet(10)
    devices[4].nature = Nature.DEAF
    devices[4].back_at = 1_800_000_700.0
    world = World(devices, spec(stages=(), gates=(Gate(metric=Metric.UPDATE_SUCCESS, min=0.9),)))
    world.run(seconds=650)
    assert world.status() is RolloutStatus.DONE
    assert world.members["d0004"].reason == "silent"
    world.advance(100)
    world.advance(100)
    world.tick()
    assert world.members["d0004"].state is MemberState.COMMITTED
    assert world.kinds()[-1] == "committed-late"


def test_a_revoked_device_counts_as_failed_but_is_not_waited_for():
    devices = fleet(3, delay=100.0)
    world = World(devices, spec(stages=()))
    world.tick()
    devices[2].revoked = True
    world.tick()
    assert world.members["d0002"].reason == "revoked"
    world.run(seconds=300)
    assert world.status() is RolloutStatus.UNDONE
    assert world.rollout.finished is not None
    assert world.rollout.finished - 1_800_000_000.0 < 300


def test_stage_labels_choose_devices_and_the_base_of_a_percentage():
    devices = fleet(20)
    for device in devices[10:]:
        device.labels["ring"] = "canary"
    stages = (StageSpec(name="ring", percent=20, labels={"ring": "canary"}), StageSpec(name="rest"))
    world = World(devices, spec(stages=stages))
    world.tick()
    assert world.touched() == {"d0010", "d0011"}
    assert world.stages[0].fleet == 10


def test_a_limit_counts_the_fleet_as_it_is_when_the_stage_starts():
    devices = fleet(20)
    world = World(devices, spec(stages=(StageSpec(name="one", count=1), StageSpec(name="half", percent=50))))
    world.tick()
    for device in fleet(30)[20:]:
        world.devices[device.id] = device
        device.start_on(bundle(1), world.now)
    world.run(seconds=100)
    assert len(world.touched()) == 1 + 15
    assert world.status() is RolloutStatus.DONE


def test_devices_that_have_it_already_and_busy_ones_are_left_alone():
    devices = fleet(2)
    world = World(devices, spec(stages=()))
    devices[0].desired = bundle(2)
    world.tick()
    assert world.touched() == {"d0001"}


def test_a_huge_stage_is_told_in_batches():
    world = World(fleet(BATCH + 3), spec(stages=()))
    state = world.state()
    assert len(plan(state, world.now).actions) == 1
    assert world.tick() == 3
    assert world.kinds().count("assigned") == 2


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        (Verb.PAUSE, RolloutStatus.PAUSED),
        (Verb.PAUSE, RolloutStatus.DONE),
        (Verb.RESUME, RolloutStatus.RUNNING),
        (Verb.RESUME, RolloutStatus.UNDOING),
        (Verb.UNDO, RolloutStatus.UNDONE),
        (Verb.UNDO, RolloutStatus.UNDOING),
    ],
)
def test_a_verb_out_of_place_is_refused_with_the_status(verb, status):
    world = World(fleet(1), spec())
    state = world.state()
    answer = command(replace(state, rollout=replace(state.rollout, status=status)), verb, actor="anna")
    assert answer == Refused(reason=f"it is {status}")


def test_view_shows_declared_gates_before_a_stage_starts_and_measured_ones_after():
    world = World(fleet(3), spec(stages=()))
    before = view(world.state()).stages[0]
    assert (before.total, before.gates[0].metric, before.gates[0].measured) == (0, Metric.UPDATE_SUCCESS, None)
    world.run(seconds=100)
    after = view(world.state()).stages[0]
    assert (after.total, after.committed, after.failed, after.pending) == (3, 3, 0, 0)
    assert after.gates[0].measured == 1.0
    assert after.gates[0].passed is True
