# SPDX-License-Identifier: Apache-2.0
"""Unpack: the variant's files get their names in a folder of their own."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.contract import Context, Fact, Step, StepRefused
from skerry.agent.update.fetch import plan_of
from skerry.bundle.formats import require_inert
from skerry.bundle.rules import CONFIG_PATH
from skerry.errors import ArtefactError


class Unpack(Step):
    phase: ClassVar[Phase | None] = Phase.UNPACK
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.STORED})
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.UNPACKED})
    takes_back: ClassVar[frozenset[Fact]] = frozenset({Fact.UNPACKED})

    def apply(self, context: Context) -> None:
        try:
            plan = plan_of(context)
            for file in plan.marker.files:
                if file.path != CONFIG_PATH:
                    require_inert(file.path, context.store.blob(file.digest))
        except ArtefactError as error:
            raise StepRefused(error.code, str(error)) from error
        if not context.store.unpacked(context.digest, plan.variant.name):
            context.store.unpack(plan.marker)

    def verify(self, context: Context) -> None:
        marker = context.store.marker(context.digest)
        flaw = context.store.flaw(context.digest, marker.variant if marker else "")
        if flaw:
            context.store.drop(context.digest)
            raise StepRefused("damaged", flaw)

    def undo(self, context: Context) -> None:
        if not wanted_elsewhere(context):
            context.store.drop(context.digest)


def wanted_elsewhere(context: Context) -> bool:
    """Whether another workload, or this one's committed or previous version, is the same bundle."""
    releases = [
        release for record in context.records.all() for release in (record.committed, record.previous) if release
    ]
    attempts = [
        record.attempt for record in context.records.all() if record.attempt and record.name != context.spec.name
    ]
    digests = {release.ref.digest for release in releases} | {attempt.spec.bundle.digest for attempt in attempts}
    return context.digest in digests
