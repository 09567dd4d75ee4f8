# SPDX-License-Identifier: Apache-2.0
"""Unpack: the variant's files get their names in a folder of their own."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update.contract import Context, Fact, Step, StepRefused
from skerry.agent.update.fetch import plan_of
from skerry.agent.update.plan import make_plan
from skerry.bundle import oci
from skerry.bundle.formats import require_inert
from skerry.bundle.rules import CONFIG_PATH
from skerry.errors import ArtefactError, StateDamaged


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
            for file in marker.files if marker else ():
                context.store.drop_damaged(file.digest)
            raise StateDamaged(path=str(context.store.folder(context.digest)), problem=flaw)  # fetched again, later

    def undo(self, context: Context) -> None:
        if not wanted_elsewhere(context):
            context.store.drop(context.digest)


def unpack_again(context: Context) -> bool:
    """A bundle that was unpacked here before, from what is left of it on this device. False when too little is left; what
    is damaged has gone then.
    """
    store = context.store
    store.drop_damaged(context.digest)
    try:
        manifest_data = store.read(context.digest)
        if manifest_data is None:
            return False
        manifest = oci.parse_manifest(manifest_data)
        for layer in (manifest.config, *manifest.files):
            store.drop_damaged(layer.digest)
        config_data = store.read(manifest.config.digest)
        if config_data is None:
            return False
        plan = make_plan(manifest, oci.open_config(manifest, config_data), context.capabilities)
    except (ArtefactError, StepRefused):
        return False
    if not all(store.has(file.digest) for file in plan.marker.files):
        return False
    store.unpack(plan.marker)
    return True


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
