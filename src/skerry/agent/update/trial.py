# SPDX-License-Identifier: Apache-2.0
"""Trial: the tested runner is shown live requests beside the version that serves. The judgement is pure:
`reconcile.judge_trial`. Nothing is switched, so nothing has to be switched back.
"""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.contract import Context, Fact, Step, StepFailed
from skerry.errors import RunnerFailed


class Trial(Step):
    phase: ClassVar[Phase | None] = Phase.TRIAL
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.STAGED})
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.STAGED})

    def apply(self, context: Context) -> None:
        trial = context.spec.trial
        if trial is None:
            return
        try:
            context.runners.begin_trial(context.spec.name, trial)
        except RunnerFailed as error:
            raise StepFailed("runner-failed", str(error)) from error

    def verify(self, context: Context) -> None:
        """Nothing to look at: requests have to come."""

    def undo(self, context: Context) -> None:
        attempt = context.record.attempt
        why = attempt.undoing if attempt is not None else None
        context.runners.end_trial(context.spec.name, reason=why.reason if why else "", detail=why.detail if why else "")
