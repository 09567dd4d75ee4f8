# SPDX-License-Identifier: Apache-2.0
"""What serves goes before what is being updated, and neither holds the other up."""

from __future__ import annotations

import pytest

from skerry.errors import RunnerFailed
from support.agent_world import World


def on_version_1() -> World:
    """A device whose workloads w0 and w1 both run version 1."""
    world = World()
    first = world.publisher.refs[0]
    world.assign(first, first)
    world.rounds()
    assert world.serving("w0") == world.serving("w1") == first.digest
    return world


def during_the_fetch(world: World, act) -> None:
    """`act` happens with the first byte of the next blob, and time passes."""

    def once() -> None:
        world.road.before = lambda: None
        act()
        world.clock.advance(2)

    world.road.before = once


def test_after_a_boot_everything_committed_is_started_before_anything_is_fetched():
    world = on_version_1()
    first, second = world.publisher.refs[:2]
    world.assign(second, second)
    world.boot()
    fetched = len(world.road.asked)
    seen: list[str] = []
    during_the_fetch(world, lambda: seen.extend((world.serving("w0"), world.serving("w1"))))
    world.rounds()
    assert len(world.road.asked) > fetched
    assert seen == [first.digest, first.digest]
    assert world.serving("w0") == world.serving("w1") == second.digest


def test_a_fetch_is_left_for_what_another_workload_needs_and_continued():
    world = on_version_1()
    first, second = world.publisher.refs[:2]
    world.assign(second, first)
    during_the_fetch(world, lambda: world.runners.crash("w1"))
    world.turn()
    assert world.serving("w1") == ""
    world.rounds()
    assert world.runners.served[-2:] == [first.digest, second.digest]
    assert world.serving("w0") == second.digest
    assert world.serving("w1") == first.digest


def test_a_committed_version_in_a_crash_loop_falls_back_while_the_next_one_is_fetched():
    world = World()
    first, second, third = world.publisher.refs[:3]
    for ref in (first, second):
        world.assign(ref)
        world.rounds()

    def loop() -> None:
        world.runners.crash("w0")
        world.runners.looping = {"w0"}

    world.assign(third)
    during_the_fetch(world, loop)
    world.rounds()
    assert world.states(second)[-1] == "fell-back"
    assert world.runners.served[-2:] == [first.digest, third.digest]


def test_a_committed_version_that_will_not_start_is_replaced_by_the_next_one():
    world = on_version_1()
    first, second = world.publisher.refs[:2]
    world.boot()
    world.runners.unloadable = {first.digest}
    world.rounds(5)
    assert world.serving("w0") == ""
    assert "it does not load" in world.updater.problems["w0"]
    world.assign(second, second)
    world.rounds()
    assert world.serving("w0") == world.serving("w1") == second.digest
    assert world.updater.problems == {}


def test_a_problem_nobody_asks_about_any_more_is_forgotten():
    world = on_version_1()
    world.road.breaks_after = 1
    world.assign(world.publisher.refs[1], world.publisher.refs[0])
    world.rounds(3)
    assert "w0" in world.updater.problems
    world.assign(*[world.publisher.refs[0]] * 2)
    world.rounds()
    assert world.updater.problems == {}
    assert world.updater.settled


@pytest.mark.parametrize("stage", ["stage", "promote"])
def test_a_runner_we_took_away_ourselves_speaks_not_against_its_bundle(stage):
    """SIGTERM in the middle of an update: the supervisor ends every runner, also the one being tried."""
    world = on_version_1()
    second = world.publisher.refs[1]
    ending = False

    def ended(*_: object, **__: object) -> None:
        nonlocal ending
        ending = True
        raise RunnerFailed(workload="w0", problem="it ended with SIGKILL")

    world.updater.actor._means.stopping = lambda: ending
    world.updater.stopping = lambda: ending
    setattr(world.runners, stage, ended)
    world.assign(second, second)
    world.rounds()
    assert ending
    delattr(world.runners, stage)
    record = world.records.get("w0")
    assert record.failed == ()
    assert record.attempt is not None
    world.boot()
    world.rounds()
    assert world.serving("w0") == second.digest
