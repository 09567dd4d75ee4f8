# SPDX-License-Identifier: Apache-2.0
"""Soak: from here on the new version is watched. The judgement itself is pure: `reconcile.judge_soak`."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.contract import Context, Fact, Step


class Soak(Step):
    phase: ClassVar[Phase | None] = Phase.SOAK
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.SERVING})
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.SERVING})

    def apply(self, context: Context) -> None:
        context.runners.begin_soak(context.spec.name)

    def verify(self, context: Context) -> None:
        """Nothing to look at: time has to pass."""

    def undo(self, context: Context) -> None:
        """Watching leaves nothing behind."""
