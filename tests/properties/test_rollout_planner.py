# SPDX-License-Identifier: Apache-2.0
"""Rollouts over random fleets: they end where they must, undo what they touched, and stay inside their stages."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skerry.hub.domain import ACTIVE, MemberState, Refused
from skerry.hub.rollout.changes import RolloutChanges, changes_of
from skerry.hub.rollout.draft import NewEvent
from skerry.hub.rollout.planner import plan
from skerry.hub.rollout.verbs import Verb, command
from skerry.wire.v1.operator import Gate, Metric, OnFailure, RolloutSpec, RolloutStatus, StageSpec
from unit.hub.rollout_world import START, Nature, SimDevice, World, bundle

DEADLINE = 300.0
ENOUGH = 20 * DEADLINE

limits = st.one_of(
    st.builds(lambda count: {"count": count}, st.integers(1, 8)),
    st.builds(lambda percent: {"percent": percent}, st.floats(0.5, 100)),
)
stage_lists = st.lists(st.tuples(limits, st.sampled_from([0.0, 7.0, 40.0])), max_size=3).map(
    lambda made: (
        *(StageSpec(name=f"s{n}", soak_seconds=soak, **limit) for n, (limit, soak) in enumerate(made)),
        StageSpec(name="rest"),
    )
)
delays = st.floats(0.0, 0.8 * DEADLINE)
figure_gates = st.sampled_from([(), (Gate(metric=Metric.LATENCY_P95_MS, max=50.0),)])


def spec(stages: tuple[StageSpec, ...], gates: tuple[Gate, ...], on_failure: OnFailure = OnFailure.UNDO) -> RolloutSpec:
    return RolloutSpec(
        workload="digits",
        bundle="digits:2.0",
        stages=stages,
        gates=gates,
        deadline_seconds=DEADLINE,
        on_failure=on_failure,
    )


def sim(number: int, nature: Nature, delay: float, back_after: float) -> SimDevice:
    return SimDevice(id=f"d{number:02}", name=f"e{number:02}", nature=nature, delay=delay, back_at=START + back_after)


natures = st.sampled_from(list(Nature))
broken_natures = st.sampled_from([nature for nature in Nature if nature is not Nature.GOOD])


@settings(deadline=None)
@given(stages=stage_lists, gates=figure_gates, fleet=st.lists(delays, min_size=1, max_size=25))
def test_a_healthy_fleet_ends_done(stages, gates, fleet):
    world = World([sim(n, Nature.GOOD, delay, 0.0) for n, delay in enumerate(fleet)], spec(stages, gates))
    world.run(seconds=ENOUGH, step=10.0)
    assert world.status() is RolloutStatus.DONE
    assert world.in_state(MemberState.COMMITTED) == set(world.devices)
    assert world.tick() == 0


@settings(deadline=None)
@given(
    stages=stage_lists,
    gates=figure_gates,
    fleet=st.lists(delays, min_size=1, max_size=15),
    broken=st.lists(st.tuples(broken_natures, delays, st.floats(ENOUGH, 1.4 * ENOUGH)), min_size=1, max_size=4),
    where=st.randoms(use_true_random=False),
)
def test_any_broken_device_undoes_every_device_that_was_touched(stages, gates, fleet, broken, where):
    made = [(Nature.GOOD, delay, 0.0) for delay in fleet] + broken
    where.shuffle(made)
    world = World([sim(n, *one) for n, one in enumerate(made)], spec(stages, gates))
    world.run(seconds=ENOUGH, step=10.0)
    assert world.status() is RolloutStatus.UNDONE
    assert world.quarantined
    assert all(device.desired == world.original[device.id] for device in world.devices.values())
    world.advance(2 * ENOUGH)  # the last ones are back, hear of it, and go back too
    world.advance(DEADLINE)
    world.tick()
    assert world.in_state(MemberState.UNDONE) == world.touched()
    assert {device.running for device in world.devices.values()} == {bundle(1).digest}
    assert world.tick() == 0


class AnyOrder(RuleBasedStateMachine):
    """Time, reports, operators, crashes and stale controllers in any order."""

    @initialize(
        stages=stage_lists,
        gates=figure_gates,
        on_failure=st.sampled_from(list(OnFailure)),
        fleet=st.lists(st.tuples(natures, delays, st.floats(0.0, 4 * DEADLINE)), min_size=1, max_size=12),
    )
    def begin(self, stages, gates, on_failure, fleet):
        self.world = World([sim(n, *one) for n, one in enumerate(fleet)], spec(stages, gates, on_failure))
        self.stale: list[RolloutChanges] = []
        self.events: list[NewEvent] = []

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0, DEADLINE]))
    def time_passes(self, seconds):
        self.world.advance(seconds)

    @rule()
    def controller_looks(self):
        self.world.tick()

    @rule()
    def controller_does_one_step(self):
        state = self.world.state()
        actions = plan(state, self.world.now).actions
        if actions:
            assert self.world.apply(changes_of(state, actions, self.world.now))

    @rule()
    def controller_dies_with_a_plan_in_hand(self):
        state = self.world.state()
        actions = plan(state, self.world.now).actions
        if actions:
            self.stale.append(changes_of(state, actions, self.world.now))

    @precondition(lambda self: self.stale)
    @rule()
    def its_plan_arrives_late(self):
        changes = self.stale.pop()
        moved_on = changes.rollout.version != self.world.rollout.version + 1
        assert not (self.world.apply(changes) and moved_on)

    @rule(verb=st.sampled_from(list(Verb)))
    def operator_steers(self, verb):
        state = self.world.state()
        answer = command(state, verb, actor="anna")
        if not isinstance(answer, Refused):
            assert self.world.apply(changes_of(state, answer.actions, self.world.now))

    @rule(number=st.integers(0, 11))
    def a_device_falls_back(self, number):
        device = self.world.devices.get(f"d{number:02}")
        if device is not None:
            device.falls_back_at = self.world.now

    @rule(number=st.integers(0, 11))
    def a_device_is_revoked(self, number):
        device = self.world.devices.get(f"d{number:02}")
        if device is not None:
            device.revoked = True

    @invariant()
    def events_are_only_appended(self):
        assert self.world.events[: len(self.events)] == self.events
        self.events = list(self.world.events)

    @invariant()
    def untouched_devices_run_what_they_ran(self):
        touched = self.world.touched()
        for device in self.world.devices.values():
            assert device.id in touched or device.desired == self.world.original[device.id]

    @invariant()
    def the_record_and_what_devices_shall_run_agree(self):
        for member in self.world.members.values():
            device = self.world.devices[member.device_id]
            if member.state in {MemberState.UNDOING, MemberState.UNDONE}:
                assert device.desired == self.world.original[device.id]
            elif member.assigned_at is not None:
                assert device.desired == self.world.rollout.bundle

    @invariant()
    def rest_is_rest(self):
        before = self.world.state()
        if not plan(before, self.world.now).actions:
            assert not plan(before, self.world.now).actions
            assert self.world.tick() == 0

    def teardown(self):
        if not hasattr(self, "world"):
            return
        if self.world.status() is RolloutStatus.PAUSED:
            self.world.say(Verb.UNDO)
        self.world.run(seconds=ENOUGH, step=20.0)
        for _ in range(3):
            if self.world.status() is RolloutStatus.PAUSED:
                self.world.say(Verb.UNDO)
            self.world.run(seconds=ENOUGH, step=20.0)
        assert self.world.status() not in ACTIVE
        if self.world.status() is RolloutStatus.UNDONE:
            assert all(device.desired == self.world.original[device.id] for device in self.world.devices.values())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
