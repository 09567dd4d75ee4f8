# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from skerry.agent.update.contract import Fact, Step, StepFailed, check_order
from skerry.agent.update.facts import STEPS, holds
from skerry.errors import StepContractBroken
from support.agent_world import World

NOWHERE: Any = None  # these steps look at no context


class Scripted(Step):
    """Keeps or breaks its word as told; `facts` is the world."""

    phase = None
    requires = frozenset({Fact.STORED})
    ensures = frozenset({Fact.UNPACKED})
    takes_back = frozenset({Fact.UNPACKED})

    def __init__(self, facts: set[Fact], *, honest: bool = True) -> None:
        self.facts = facts
        self.honest = honest
        self.done: list[str] = []

    def apply(self, context):
        self.done.append("apply")
        if self.honest:
            self.facts.add(Fact.UNPACKED)

    def verify(self, context):
        self.done.append("verify")

    def undo(self, context):
        self.done.append("undo")
        if self.honest:
            self.facts.discard(Fact.UNPACKED)


def look(facts):
    return lambda fact, context: fact in facts


def test_honest_step_runs_and_reverts():
    facts = {Fact.STORED}
    step = Scripted(facts)
    step.run(NOWHERE, look(facts))
    assert step.done == ["apply", "verify"]
    step.revert(NOWHERE, look(facts))
    assert facts == {Fact.STORED}


def test_step_without_what_it_requires_is_not_applied():
    step = Scripted(set())
    with pytest.raises(StepContractBroken, match="stored does not hold before"):
        step.run(NOWHERE, look(set()))
    assert step.done == []


def test_broken_promises_are_found():
    facts = {Fact.STORED}
    with pytest.raises(StepContractBroken, match="unpacked does not hold after"):
        Scripted(facts, honest=False).run(NOWHERE, look(facts))
    facts.add(Fact.UNPACKED)
    with pytest.raises(StepContractBroken, match="unpacked still holds after undo"):
        Scripted(facts, honest=False).revert(NOWHERE, look(facts))


def test_runner_that_died_is_the_bundles_failure_not_a_broken_promise():
    class Serves(Scripted):
        requires = frozenset({Fact.STAGED})

    with pytest.raises(StepFailed, match="ended before Serves"):
        Serves(set()).run(NOWHERE, look(set()))


def test_order_of_the_steps_is_sound_and_no_other_is():
    check_order(STEPS)
    with pytest.raises(StepContractBroken, match="nothing before it ensures"):
        check_order(tuple(reversed(STEPS)))
    with pytest.raises(StepContractBroken):
        check_order(STEPS[1:])


def test_facts_are_looked_up_in_the_world():
    world = World()
    first, second = world.publisher.refs[:2]
    world.assign(first)
    world.rounds()
    assert world.assignment is not None
    context = world.updater.actor._context(world.assignment.workloads[0])
    assert {fact for fact in Fact if holds(fact, context)} == set(Fact) - {Fact.STAGED}
    world.assign(second)
    context = world.updater.actor._context(world.assignment.workloads[0])
    assert {fact for fact in Fact if holds(fact, context)} == {Fact.PERMITTED}


def test_every_step_is_undone_to_nothing_and_twice_is_no_harm():
    world = World()
    world.assign(world.publisher.refs[0], soak=1e9)
    world.rounds(10)
    assert world.assignment is not None
    context = world.updater.actor._context(world.assignment.workloads[0])
    assert holds(Fact.SERVING, context)
    for step in (*reversed(STEPS), *reversed(STEPS)):
        step.revert(context, holds)
    assert {fact for fact in Fact if holds(fact, context)} == {Fact.PERMITTED, Fact.STORED}
