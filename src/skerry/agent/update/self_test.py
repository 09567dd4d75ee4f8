# SPDX-License-Identifier: Apache-2.0
"""Self-test: a fresh runner loads the variant and answers the golden samples, before anyone depends on it."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.contract import Context, Fact, Step, StepFailed
from skerry.agent.update.launch import launch
from skerry.errors import RunnerFailed, SelfTestFailed


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
