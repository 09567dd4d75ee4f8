# SPDX-License-Identifier: Apache-2.0
"""A trial in the agent's own update code: files in memory, runners that are only names."""

from __future__ import annotations

import pytest

from skerry.agent.state import Phase
from skerry.testing.files import Fate
from skerry.wire.v1.device import KeepWarm, Trial
from support.agent_world import World

TRIAL = Trial(seconds=30.0, longest_seconds=120.0, min_samples=20)


@pytest.fixture
def world() -> World:
    made = World()
    made.assign(made.publisher.refs[0])
    made.rounds()
    assert made.serving() == made.publisher.refs[0].digest
    return made


def test_a_version_that_passes_its_trial_is_switched_to(world):
    second = world.publisher.refs[1]
    world.assign(second, trial=TRIAL)
    world.rounds(300)
    assert world.serving() == second.digest
    assert world.states(second) == ["fetching", "self-testing", "trying", "switching", "soaking", "committed"]
    assert world.runners.trials_ended == [""]


def test_a_version_that_disagrees_never_serves_and_is_remembered(world):
    first, second = world.publisher.refs[:2]
    world.runners.trial_seen = {"agreed": 500}
    world.assign(second, trial=TRIAL)
    world.rounds(300)
    assert world.serving() == first.digest
    assert world.runners.served == [first.digest]
    assert world.states(second) == ["fetching", "self-testing", "trying", "undone"]
    assert world.runners.trials_ended == ["agreement"]
    record = world.records.get("w0")
    assert record.failure(second.digest).reason == "agreement"
    world.assign(second)
    world.rounds()
    assert world.states(second)[-1] == "refused"


def test_without_enough_requests_it_is_undone_and_may_be_asked_for_again(world):
    first, second = world.publisher.refs[:2]
    world.runners.asked = 3
    world.assign(second, trial=TRIAL)
    world.rounds(600)
    assert world.serving() == first.digest
    assert world.states(second) == ["fetching", "self-testing", "trying", "undone"]  # and not tried again by itself
    assert world.records.get("w0").failed == ()
    world.assign(second)
    world.rounds()
    assert world.serving() == second.digest


def test_a_crash_in_the_trial_is_the_new_version_s_failure(world):
    first, second = world.publisher.refs[:2]
    world.runners.trial_seen = {"crashed": "it ended with SIGSEGV"}
    world.assign(second, trial=TRIAL)
    world.rounds(300)
    assert world.serving() == first.digest
    assert world.records.get("w0").failure(second.digest).reason == "crashed-in-trial"


@pytest.mark.parametrize("fate", list(Fate))
def test_an_agent_that_lost_power_in_a_trial_holds_it_again(world, fate):
    first, second = world.publisher.refs[:2]
    world.assign(second, trial=TRIAL)
    for _ in range(4):
        world.turn()
    assert world.records.get("w0").attempt.phase is Phase.TRIAL
    world.boot(fate)
    world.rounds(300)
    assert world.serving() == second.digest
    assert world.runners.served[-2:] == [first.digest, second.digest]  # the current one came first


def test_the_hub_changing_its_mind_ends_the_trial(world):
    first, second, third = world.publisher.refs[:3]
    world.assign(second, trial=TRIAL)
    for _ in range(4):
        world.turn()
    world.assign(third)
    world.rounds(300)
    assert world.serving() == third.digest
    assert world.runners.trials_ended in (["superseded", ""], ["superseded"])
    assert world.records.get("w0").failed == ()
    assert second.digest not in world.runners.served
    assert first.digest in world.runners.served


def test_undo_in_the_soak_brings_back_what_was_kept_warm(world):
    first, second = world.publisher.refs[:2]
    world.assign(second)
    for _ in range(3):
        world.turn()
    assert world.serving() == second.digest
    world.runners.crash("w0")
    world.rounds()
    assert world.serving() == first.digest
    assert world.runners.brought_back == 1


def test_after_the_commit_nothing_is_kept_warm(world):
    second = world.publisher.refs[1]
    world.assign(second)
    world.rounds()
    assert world.runners.warmth("w0") == ""
    assert world.records.get("w0").committed.ref == second


def test_where_nothing_is_to_be_kept_warm_the_version_before_is_loaded_again(world):
    first, second = world.publisher.refs[:2]
    world.assign(second, keep_warm=KeepWarm.NEVER)
    for _ in range(3):
        world.turn()
    assert world.serving() == second.digest
    world.runners.crash("w0")
    world.rounds()
    assert world.serving() == first.digest
    assert world.runners.brought_back == 0


def test_a_device_that_restarts_often_gives_a_trial_up_and_says_why(world):
    first, second = world.publisher.refs[:2]
    world.assign(second, trial=TRIAL)
    for _ in range(5):
        for _ in range(4):
            world.turn()
        world.boot()
    world.rounds(20)
    assert world.serving() == first.digest
    record = world.records.get("w0")
    assert (record.attempt, record.failed, record.refusal.reason) == (None, (), "trial-cut-short")
    assert world.states(second)[-1] == "undone"
    world.assign(second)
    world.rounds()
    assert world.serving() == second.digest
