# SPDX-License-Identifier: Apache-2.0
"""Whatever is assigned, refused, crashed or cut short, in any order: a device never serves what trust did not allow, never
starts half a bundle, never tries again what failed, and in the end runs what it was asked to run or what it had before."""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from skerry.testing.files import PowerCut
from support.agent_world import World

VERSIONS = 4
version = st.integers(0, VERSIONS - 1)


class Device(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(versions=VERSIONS)
        self.told_failed: set[str] = set()

    @rule(number=version, soak=st.sampled_from([0.0, 5.0]))
    def assign(self, number, soak):
        self.world.assign(self.world.publisher.refs[number], soak=soak)

    @rule()
    def assign_nothing(self):
        self.world.assign()

    @rule(number=version)
    def lose_from_the_catalogue(self, number):
        self.world.publisher.entries.pop(self.world.publisher.refs[number].target, None)

    @rule(number=version)
    def turn_bad(self, number):
        self.world.runners.bad.add(self.world.publisher.refs[number].digest)

    @rule(count=st.integers(1, 30))
    def go_on(self, count):
        self.world.rounds(count)

    @rule(operations=st.integers(0, 60), torn=st.booleans(), count=st.integers(1, 30))
    def lose_power(self, operations, torn, count):
        self.world.files.cut_after(operations, torn_new=torn)
        with contextlib.suppress(PowerCut):
            self.world.rounds(count)
        self.world.boot()

    @rule()
    def crash(self):
        self.world.runners.crash("w0")

    @rule()
    def crash_again_and_again(self):
        if self.world.serving():
            self.world.runners.crash("w0")
            self.world.runners.looping.add("w0")

    @rule(size=st.none() | st.integers(1, 300))
    def bend_the_road(self, size):
        self.world.road.breaks_after = size

    @invariant()
    def only_whole_and_allowed_bundles_run(self):
        assert self.world.runners.not_whole == []
        assert set(self.world.runners.served) <= self.world.gate.allowed

    @invariant()
    def every_end_is_told_once(self):
        record = self.world.records.get("w0")
        undone = {failure.digest for failure in record.failed}
        said = {
            made.pending[0].report.digest
            for state, made in self.world.ledger.said
            if state in {"undone", "fell-back"} and made.failure(made.pending[0].report.digest)
        }
        assert undone <= said

    @invariant()
    def what_is_committed_did_not_fail(self):
        record = self.world.records.get("w0")
        if record.committed:
            assert record.failure(record.committed.ref.digest) is None

    def teardown(self):
        world = self.world
        world.road.breaks_after = None
        world.runners.looping.clear()
        world.boot()
        world.rounds(200)
        record = world.records.get("w0")
        assert record.attempt is None
        if record.committed and record.committed.ref.digest not in world.runners.bad:
            assert world.serving() == record.committed.ref.digest
        wanted = world.assignment.workloads if world.assignment else ()
        if world.assignment and not wanted:
            assert world.serving() == ""
        for spec in wanted:
            at_rest = record.committed and record.committed.ref.digest == spec.bundle.digest
            assert at_rest or world.states(spec.bundle)[-1] in {"undone", "refused", "fell-back"}


Device.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDevice = Device.TestCase
