# SPDX-License-Identifier: Apache-2.0
"""May this device install this bundle? Pure: everything it needs comes in, the answer carries its reason.

Asked twice: `decide_fetch` before a byte of the bundle is fetched, `decide_install` when its manifest and config are in hand.
The second answers everything the first did, so skipping the first loses bandwidth, not safety.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import StrEnum

from msgspec import Struct

from skerry.bundle.manifest import BundleConfig
from skerry.trust.floors import Floors, effective_now
from skerry.wire.v1.device import WorkloadSpec, target_path


class RefusalReason(StrEnum):
    NOT_IN_CATALOGUE = "not-in-catalogue"  # assigned, but no release key ever signed it
    WRONG_TARGET = "wrong-target"  # another bundle stands where this one should
    WRONG_LINE = "wrong-line"  # of a product line this device does not belong to
    DIGEST_MISMATCH = "digest-mismatch"  # catalogue, assignment and bytes do not name one bundle
    RELEASE_SEQ_MISMATCH = "release-seq-mismatch"  # an old model re-published under a new version
    ROLLBACK = "rollback"  # older than what this device already left behind
    FREEZE = "freeze"  # the catalogue in hand is too old to install from
    FAILED_BEFORE = "failed-before"  # this very bundle was tried here and undone
    UNSAFE_BUNDLE = "unsafe-bundle"  # packed with checks skipped, against this device's policy
    MALFORMED = "malformed"


class CatalogueEntry(Struct, frozen=True, kw_only=True):
    """What the catalogue says of one bundle. Made by trust.catalogue from verified metadata only."""

    target: str
    digest: str  # of the bundle's OCI manifest
    size: int  # bytes of the OCI manifest
    line: str
    model: str
    version: str
    release_seq: int
    floor_seq: int = 0
    fresh_until: float = 0.0  # earliest expiry among the metadata this was read from, seconds since the epoch


class ConfigFacts(Struct, frozen=True, kw_only=True):
    """What the bundle says of itself, and the digest of the manifest bytes in hand."""

    name: str
    version: str
    line: str
    release_seq: int
    floor_seq: int
    manifest_digest: str
    unsafe: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: BundleConfig, *, manifest_digest: str) -> ConfigFacts:
        return cls(
            name=config.name,
            version=config.version,
            line=config.line,
            release_seq=config.release_seq,
            floor_seq=config.floor_seq,
            manifest_digest=manifest_digest,
            unsafe=config.unsafe,
        )


class InstallPolicy(Struct, frozen=True, kw_only=True):
    """The device owner's own word, stricter than any signature."""

    lines: tuple[str, ...] = ()  # product lines this device takes bundles of; empty = any
    allow_unsafe: tuple[str, ...] = ()  # names of skipped checks that are tolerated


class Allowed(Struct, frozen=True, kw_only=True):
    digest: str


class Refused(Struct, frozen=True, kw_only=True):
    reason: RefusalReason
    detail: str


def decide_fetch(
    *,
    spec: WorkloadSpec,
    entry: CatalogueEntry | None,
    floors: Floors,
    failed_digests: AbstractSet[str],
    now: float,
    policy: InstallPolicy | None = None,
) -> Allowed | Refused:
    """Whether to fetch the bundle of a workload from an accepted assignment. `now` is the clock's seconds."""
    if entry is None:
        detail = f"the catalogue has nothing at {spec.bundle.target}"
        return Refused(reason=RefusalReason.NOT_IN_CATALOGUE, detail=detail)
    checks = (
        _same_target(spec, entry),
        _same_bundle(spec, entry),
        _line(entry, policy or InstallPolicy()),
        _fresh(entry, effective_now(now, floors)),
        _floor(entry, floors),
        _tried(entry, failed_digests),
    )
    return _first(checks) or Allowed(digest=entry.digest)


def decide_install(
    *,
    spec: WorkloadSpec,
    entry: CatalogueEntry | None,
    facts: ConfigFacts,
    floors: Floors,
    failed_digests: AbstractSet[str],
    now: float,
    policy: InstallPolicy | None = None,
) -> Allowed | Refused:
    """Whether to activate the bundle that was fetched. `facts` are read from the very bytes that will be used."""
    before = decide_fetch(spec=spec, entry=entry, floors=floors, failed_digests=failed_digests, now=now, policy=policy)
    if isinstance(before, Refused) or entry is None:
        return before
    checks = (_same_bytes(entry, facts), _same_identity(entry, facts), _safe(facts, policy or InstallPolicy()))
    return _first(checks) or before


def _first(checks: Iterable[Refused | None]) -> Refused | None:
    return next((refused for refused in checks if refused is not None), None)


def _same_target(spec: WorkloadSpec, entry: CatalogueEntry) -> Refused | None:
    bundle = spec.bundle
    expected = target_path(bundle.line, bundle.model, bundle.version)
    if not (bundle.target == entry.target == expected == target_path(entry.line, entry.model, entry.version)):
        detail = f"assigned {bundle.target}, the catalogue answers with {entry.target} ({entry.model}:{entry.version})"
        return Refused(reason=RefusalReason.WRONG_TARGET, detail=detail)
    return None


def _same_bundle(spec: WorkloadSpec, entry: CatalogueEntry) -> Refused | None:
    bundle = spec.bundle
    if bundle.digest != entry.digest:
        detail = f"assigned {bundle.digest}, the catalogue names {entry.digest}"
        return Refused(reason=RefusalReason.DIGEST_MISMATCH, detail=detail)
    if bundle.release_seq != entry.release_seq:
        detail = f"assigned as release {bundle.release_seq}, the catalogue says {entry.release_seq}"
        return Refused(reason=RefusalReason.RELEASE_SEQ_MISMATCH, detail=detail)
    return None


def _line(entry: CatalogueEntry, policy: InstallPolicy) -> Refused | None:
    if policy.lines and entry.line not in policy.lines:
        detail = f"it belongs to line {entry.line}, this device to {', '.join(policy.lines)}"
        return Refused(reason=RefusalReason.WRONG_LINE, detail=detail)
    return None


def _fresh(entry: CatalogueEntry, now: float) -> Refused | None:
    if entry.fresh_until <= now:
        detail = f"the catalogue in hand expired {now - entry.fresh_until:.0f} s ago"
        return Refused(reason=RefusalReason.FREEZE, detail=detail)
    return None


def _floor(entry: CatalogueEntry, floors: Floors) -> Refused | None:
    floor = floors.release(entry.line, entry.model)
    if entry.release_seq < floor:
        detail = f"release {entry.release_seq} of {entry.line}/{entry.model} is below this device's floor {floor}"
        return Refused(reason=RefusalReason.ROLLBACK, detail=detail)
    if entry.floor_seq > entry.release_seq or entry.release_seq < 1:
        detail = f"release {entry.release_seq} with floor {entry.floor_seq}"
        return Refused(reason=RefusalReason.MALFORMED, detail=detail)
    return None


def _tried(entry: CatalogueEntry, failed_digests: AbstractSet[str]) -> Refused | None:
    if entry.digest in failed_digests:
        detail = f"{entry.digest} failed on this device before"
        return Refused(reason=RefusalReason.FAILED_BEFORE, detail=detail)
    return None


def _same_bytes(entry: CatalogueEntry, facts: ConfigFacts) -> Refused | None:
    if facts.manifest_digest != entry.digest:
        detail = f"the manifest in hand is {facts.manifest_digest}, signed is {entry.digest}"
        return Refused(reason=RefusalReason.DIGEST_MISMATCH, detail=detail)
    return None


def _same_identity(entry: CatalogueEntry, facts: ConfigFacts) -> Refused | None:
    if facts.line != entry.line:
        detail = f"the bundle says line {facts.line}, the catalogue {entry.line}"
        return Refused(reason=RefusalReason.WRONG_LINE, detail=detail)
    if (facts.release_seq, facts.floor_seq) != (entry.release_seq, entry.floor_seq):
        detail = f"the bundle was made as release {facts.release_seq}, published as {entry.release_seq}"
        return Refused(reason=RefusalReason.RELEASE_SEQ_MISMATCH, detail=detail)
    if (facts.name, facts.version) != (entry.model, entry.version):
        detail = f"the bundle is {facts.name}:{facts.version}, published as {entry.model}:{entry.version}"
        return Refused(reason=RefusalReason.WRONG_TARGET, detail=detail)
    return None


def _safe(facts: ConfigFacts, policy: InstallPolicy) -> Refused | None:
    skipped = [check for check in facts.unsafe if check not in policy.allow_unsafe]
    if skipped:
        detail = f"packed without: {', '.join(skipped)}"
        return Refused(reason=RefusalReason.UNSAFE_BUNDLE, detail=detail)
    return None
