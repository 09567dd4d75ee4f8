# SPDX-License-Identifier: Apache-2.0
"""Commit: one write of the record makes the new version the one this device falls back to and starts with."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update import progress
from skerry.agent.update.contract import Context, Fact, Step


class Commit(Step):
    phase: ClassVar[Phase | None] = None  # the write itself ends the attempt
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.SERVING})
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.COMMITTED})

    def apply(self, context: Context) -> None:
        """The floor rises first: a crash in between leaves a version that soaks again, never one below its floor."""
        record = context.record
        attempt = record.attempt
        if attempt is None:
            return
        bundle = attempt.spec.bundle
        same = record.committed is not None and record.committed.ref.line == bundle.line
        replaced = (
            record.committed.ref if record.committed and same and record.committed.ref.model == bundle.model else None
        )
        context.permits.committed(
            line=bundle.line,
            model=bundle.model,
            release_seq=bundle.release_seq,
            replaced=replaced.release_seq if replaced else None,
            floor_seq=attempt.floor_seq,
        )
        context.records.put(progress.committed(record, now=context.clock.now()))

    def verify(self, context: Context) -> None:
        """The record was read back into force by `put`."""

    def undo(self, context: Context) -> None:
        """A commit is not taken back: going back from here is a fall-back or another assignment."""
