# SPDX-License-Identifier: Apache-2.0
"""Self-test: a fresh runner loads the variant and answers the golden samples, before anyone depends on it."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.admission import Device, give_way, needed_mib
from skerry.agent.update.contract import Context, Fact, Step, StepFailed, StepRefused
from skerry.agent.update.fetch import plan_of
from skerry.agent.update.launch import launch
from skerry.errors import ArtefactError, RunnerFailed, SelfTestFailed


class SelfTest(Step):
    phase: ClassVar[Phase | None] = Phase.SELF_TEST
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.UNPACKED})
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.STAGED})
    takes_back: ClassVar[frozenset[Fact]] = frozenset({Fact.STAGED})

    def apply(self, context: Context) -> None:
        fresh = launch(
            context.spec.name,
            context.spec.bundle,
            context.store,
            variant="",
            rollout=context.spec.rollout,
            memory_limit_mib=context.memory_limit_mib,
            limits=context.spec.limits,
        )
        _make_room(context)
        try:
            context.runners.stage(fresh)
        except SelfTestFailed as error:
            raise StepFailed("self-test-failed", str(error)) from error
        except RunnerFailed as error:
            raise StepFailed("runner-failed", str(error)) from error

    def verify(self, context: Context) -> None:
        if context.runners.staged(context.spec.name) != context.digest:
            raise StepFailed("runner-failed", "it ended right after its self-test")

    def undo(self, context: Context) -> None:
        context.runners.discard(context.spec.name)


def _make_room(context: Context) -> None:
    """What other workloads only keep warm goes where this one needs its memory. Raises StepRefused."""
    warm = context.runners.warm()
    if not warm:
        return
    try:
        needed = needed_mib(plan_of(context).variant, context.spec.limits)
    except ArtefactError as error:
        raise StepRefused(error.code, str(error)) from error
    capabilities = context.capabilities
    device = Device(memory_mib=capabilities.memory_mib, cpus=capabilities.cpus, taken=context.taken())
    for workload in give_way(needed, device, warm):
        why = f"the version before is no longer kept warm: {context.spec.name} needs its memory"
        context.runners.let_go(workload, why)
