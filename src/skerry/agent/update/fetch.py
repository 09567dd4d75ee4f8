# SPDX-License-Identifier: Apache-2.0
"""Fetch: trust first, then the manifest, then space, then the blobs this device's variant needs."""

from __future__ import annotations

from typing import ClassVar

from skerry.agent.state import Phase
from skerry.agent.update import progress
from skerry.agent.update.admission import DOES_NOT_FIT, Device, DoesNotFit, admit
from skerry.agent.update.contract import Context, Fact, Plan, Step, StepRefused
from skerry.agent.update.download import download, refuse_wrong_content
from skerry.agent.update.plan import make_plan
from skerry.bundle import oci
from skerry.errors import ArtefactError, CatalogueRefused, DigestMismatch, TooMuchData
from skerry.trust.decision import CatalogueEntry, ConfigFacts, RefusalReason, Refused

SPARE_BYTES = 16 * 1024 * 1024
"""Left free for outbox, records and logs."""

NO_SPACE = "no-space"


class Fetch(Step):
    phase: ClassVar[Phase | None] = Phase.FETCH
    requires: ClassVar[frozenset[Fact]] = frozenset()
    ensures: ClassVar[frozenset[Fact]] = frozenset({Fact.PERMITTED, Fact.STORED})

    def apply(self, context: Context) -> None:
        context.permits.refresh()  # a catalogue that is refused says nothing of this bundle: try again later
        entry = permitted_entry(context)
        try:
            manifest = self._manifest(context, entry)
            download(context, manifest.config.digest, manifest.config.size)
            plan = plan_of(context)
            record = progress.planned(context.record, variant=plan.variant.name, floor_seq=plan.floor_seq)
            context.records.put(record)
            _admit(context, plan)
            self._make_room(context, plan)
            for file in plan.marker.files:
                download(context, file.digest, file.size)
        except (DigestMismatch, TooMuchData) as error:
            raise refuse_wrong_content(error) from error
        except CatalogueRefused as error:
            raise StepRefused(str(error.fields["reason"]), str(error)) from error
        except ArtefactError as error:
            raise StepRefused(error.code, str(error)) from error

    def verify(self, context: Context) -> None:
        """`download` hashed every blob as it became visible, and `plan_of` the documents as it read them."""

    def undo(self, context: Context) -> None:
        """Blobs stay: they may be wanted again, and the store collects what nothing refers to."""

    @staticmethod
    def _manifest(context: Context, entry: CatalogueEntry) -> oci.Manifest:
        data = context.store.read(entry.digest)
        if data is None:
            data = context.permits.manifest(entry)
            context.store.add(entry.digest, data)
        return oci.parse_manifest(data)

    @staticmethod
    def _make_room(context: Context, plan: Plan) -> None:
        missing = sum(
            file.size - context.store.received(file.digest)
            for file in plan.marker.files
            if not context.store.has(file.digest)
        )
        if missing + SPARE_BYTES > context.store.free():
            context.store.collect({digest for record in context.records.all() for digest in record.digests()})
        if missing + SPARE_BYTES > context.store.free():
            detail = f"{missing} bytes to fetch, {context.store.free()} free of which {SPARE_BYTES} are kept"
            raise StepRefused(NO_SPACE, detail)


def _admit(context: Context, plan: Plan) -> None:
    """Raises StepRefused."""
    capabilities = context.capabilities
    device = Device(memory_mib=capabilities.memory_mib, cpus=capabilities.cpus, taken=context.taken())
    decision = admit(context.spec.name, plan.variant, context.spec.limits, device, others=plan.others)
    if isinstance(decision, DoesNotFit):
        raise StepRefused(DOES_NOT_FIT, decision.detail)


def permitted_entry(context: Context) -> CatalogueEntry:
    """What the catalogue says of the assigned bundle, when trust allows fetching it. Raises StepRefused."""
    decision = context.permits.for_fetch(context.spec, context.failed)
    if isinstance(decision, Refused):
        raise StepRefused(decision.reason, decision.detail)
    entry = context.permits.entry(context.spec.bundle.target)
    if entry is None:
        raise StepRefused(RefusalReason.NOT_IN_CATALOGUE, context.spec.bundle.target)
    return entry


def plan_of(context: Context) -> Plan:
    """Read from the stored, hashed documents, with trust's word on their content. Raises StepRefused, ArtefactError."""
    manifest_data = context.store.read(context.digest)
    if manifest_data is None:
        raise StepRefused(RefusalReason.MALFORMED, "its manifest is not on this device")
    manifest = oci.parse_manifest(manifest_data)
    config_data = context.store.read(manifest.config.digest)
    if config_data is None:
        raise StepRefused(RefusalReason.MALFORMED, "its skerry.json is not on this device")
    config = oci.open_config(manifest, config_data)
    facts = ConfigFacts.of(config, manifest_digest=manifest.digest)
    decision = context.permits.for_install(context.spec, facts, context.failed)
    if isinstance(decision, Refused):
        raise StepRefused(decision.reason, decision.detail)
    return make_plan(manifest, config, context.capabilities)
