# SPDX-License-Identifier: Apache-2.0
"""Making and replacing the root: who may sign what. Pure; each holder adds one signature on a machine of their own.

A root is complete when the threshold of its own root keys, and of those of the root before it, have signed it.
"""

from __future__ import annotations

from msgspec import Struct
from tuf.api.metadata import Metadata, Role, Root

from skerry.errors import CatalogueRefused, CeremonyError
from skerry.trust import metadata
from skerry.trust.metadata import CatalogueRefusal


class RootPlan(Struct, frozen=True, kw_only=True):
    """Public keys (32 raw bytes each) per role. Root and targets keys are kept offline; the other two live on the hub."""

    root_keys: tuple[bytes, ...]
    root_threshold: int
    targets_keys: tuple[bytes, ...]
    targets_threshold: int = 1
    snapshot_key: bytes
    timestamp_key: bytes


class RootStatus(Struct, frozen=True, kw_only=True):
    """How far the signing of one root has come. Names are TUF key ids."""

    version: int
    threshold: int
    expires: float
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    missing: int  # signatures still needed, of this root's keys or of its predecessor's, whichever lacks more

    @property
    def complete(self) -> bool:
        return self.missing == 0


def make_root(plan: RootPlan, *, expires: float, version: int = 1) -> bytes:
    """Unsigned root metadata. Raises CeremonyError for a plan that would leave a role without a real threshold."""
    _check_plan(plan)
    root = Root(version=version, expires=metadata.instant(expires), consistent_snapshot=True)
    root.roles["root"] = Role([], plan.root_threshold)
    root.roles["targets"] = Role([], plan.targets_threshold)
    _add(root, "root", plan.root_keys)
    _add(root, "targets", plan.targets_keys)
    _add(root, "snapshot", (plan.snapshot_key,))
    _add(root, "timestamp", (plan.timestamp_key,))
    return Metadata(root).to_bytes()


def plan_of(root: bytes) -> RootPlan:
    """The plan a root was made by, to change and make the next one of. Raises CeremonyError for keys that are not Ed25519."""
    signed = metadata.parse(Root, root).signed
    return RootPlan(
        root_keys=_keys(signed, "root"),
        root_threshold=signed.roles["root"].threshold,
        targets_keys=_keys(signed, "targets"),
        targets_threshold=signed.roles["targets"].threshold,
        snapshot_key=_keys(signed, "snapshot")[0],
        timestamp_key=_keys(signed, "timestamp")[0],
    )


def next_root(current: bytes, plan: RootPlan, *, expires: float) -> bytes:
    """Unsigned successor of `current`."""
    return make_root(plan, expires=expires, version=metadata.version_of(current) + 1)


def root_status(root: bytes, previous: bytes | None = None) -> RootStatus:
    """Who has signed. Without `previous` a later root is judged by its own keys only. Raises CeremonyError when not sequential."""
    parsed = metadata.parse(Root, root)
    before = metadata.parse(Root, previous).signed if previous is not None else None
    try:
        result = parsed.signed.get_root_verification_result(before, parsed.signed_bytes, parsed.signatures)
    except ValueError as error:
        raise CeremonyError(problem=str(error)) from error
    return RootStatus(
        version=parsed.signed.version,
        threshold=parsed.signed.roles["root"].threshold,
        expires=parsed.signed.expires.timestamp(),
        signed=tuple(sorted(result.signed)),
        unsigned=tuple(sorted(result.unsigned)),
        missing=max(result.first.missing, result.second.missing),
    )


def may_sign(root: bytes, public_key: bytes, previous: bytes | None = None) -> bool:
    """Whether a signature of this key would count."""
    name = metadata.tuf_key(public_key).keyid
    roots = [metadata.parse(Root, data).signed for data in (root, previous) if data is not None]
    return any(name in signed.roles["root"].keyids for signed in roots)


def verify_first_root(root: bytes, *, now: float) -> None:
    """Raises CatalogueRefused unless the root meets its own threshold and is not expired at `now`."""
    parsed = metadata.parse(Root, root)
    metadata.require_signed(parsed, "root", root)
    _require_fresh(parsed.signed, now)


def verify_next_root(current: bytes, candidate: bytes, *, now: float) -> None:
    """Raises CatalogueRefused unless `candidate` is the next version, signed by the thresholds of both, and not expired."""
    before, after = metadata.parse(Root, current), metadata.parse(Root, candidate)
    if after.signed.version != before.signed.version + 1:
        detail = f"root version {after.signed.version} after {before.signed.version}"
        raise CatalogueRefused(reason=CatalogueRefusal.ROLLBACK, detail=detail)
    metadata.require_signed(before, "root", candidate)
    metadata.require_signed(after, "root", candidate)
    _require_fresh(after.signed, now)


def _require_fresh(root: Root, now: float) -> None:
    if root.is_expired(metadata.instant(now)):
        raise CatalogueRefused(
            reason=CatalogueRefusal.FREEZE, detail=f"root version {root.version} expired at {root.expires}"
        )


def _check_plan(plan: RootPlan) -> None:
    for role, keys, threshold in (
        ("root", plan.root_keys, plan.root_threshold),
        ("targets", plan.targets_keys, plan.targets_threshold),
    ):
        if len(set(keys)) != len(keys):
            raise CeremonyError(problem=f"{role}: the same key is given twice")
        if not 1 <= threshold <= len(keys):
            raise CeremonyError(problem=f"{role}: threshold {threshold} of {len(keys)} keys cannot work")
    online, offline = {plan.snapshot_key, plan.timestamp_key}, {*plan.root_keys, *plan.targets_keys}
    if online & offline:
        raise CeremonyError(problem="a key of the hub must not be a root or targets key as well")


def _add(root: Root, role: str, keys: tuple[bytes, ...]) -> None:
    for public_key in keys:
        root.add_key(metadata.tuf_key(public_key), role)


def _keys(root: Root, role: str) -> tuple[bytes, ...]:
    keys = [root.get_key(name) for name in root.roles[role].keyids]
    if not keys or any(key.keytype != "ed25519" for key in keys):
        raise CeremonyError(problem=f"{role}: only Ed25519 keys can be carried over")
    return tuple(bytes.fromhex(key.keyval["public"]) for key in keys)
