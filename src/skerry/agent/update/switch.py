# SPDX-License-Identifier: Apache-2.0
"""Switch: trust is asked once more, then the tested runner takes over the listening socket and the old one drains."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.contract import Context, Fact, Launch, Step, StepFailed, StepRefused
from skerry.agent.update.fetch import plan_of
from skerry.agent.update.launch import launch_of
from skerry.errors import AddressTaken, ArtefactError, RunnerFailed, SelfTestFailed
from skerry.wire.v1.device import KeepWarm


class Switch(Step):
    phase: ClassVar[Phase | None] = Phase.SWITCH
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.STAGED})
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.SERVING})
    takes_back: ClassVar[frozenset[Fact]] = frozenset({Fact.SERVING})

    def apply(self, context: Context) -> None:
        try:
            plan_of(context)
        except ArtefactError as error:
            raise StepRefused(error.code, str(error)) from error
        keep_warm = context.record.committed is not None and context.spec.keep_warm is KeepWarm.AUTO
        context.runners.end_trial(context.spec.name)
        try:
            context.runners.promote(context.spec.name, keep_warm=keep_warm)
        except RunnerFailed as error:
            raise StepFailed("runner-failed", str(error)) from error

    def verify(self, context: Context) -> None:
        if context.runners.serving(context.spec.name) != context.digest:
            raise StepFailed("runner-failed", "it ended as soon as it served")

    def undo(self, context: Context) -> None:
        """Back to the committed version; the failed one goes even when that version does not start either, and also where
        only a killed agent knew that it serves.
        """
        name, runners = context.spec.name, context.runners
        launch = committed_launch(context)
        back = launch is not None and runners.bring_back(name, launch.digest)
        if launch is not None and not back and runners.serving(name) != launch.digest:
            try:
                self._serve(context, launch)
            except (AddressTaken, RunnerFailed, SelfTestFailed):  # reconcile starts it, with patience
                runners.discard(name)
        if launch is None or runners.serving(name) == context.digest:
            runners.stop(name)
        runners.end_orphans(name, context.digest)

    @staticmethod
    def _serve(context: Context, launch: Launch) -> None:
        """What has a flaw is left to reconcile, which has it mended."""
        if not context.store.flaw(launch.digest, launch.variant):
            context.runners.stage(launch)
            context.runners.promote(launch.workload)


def committed_launch(context: Context) -> Launch | None:
    """How to run what this workload last committed; None when it committed nothing."""
    release = context.record.committed
    if release is None:
        return None
    return launch_of(context.spec.name, release, context.store, context.memory_limit_mib)
