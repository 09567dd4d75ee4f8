# SPDX-License-Identifier: Apache-2.0
"""Making the catalogue below the root. Pure: metadata as bytes in, metadata as bytes out, expiry dates from the caller.

targets            offline; names the product lines with their keys, and the keys assignments are signed with
line-<line>        offline, one release key per product line; one target per bundle: its OCI manifest, with release_seq
snapshot           online; which versions belong together
timestamp          online; how fresh
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from skerry.errors import CatalogueRefused
from skerry.trust import metadata
from skerry.trust.decision import CatalogueEntry
from skerry.trust.metadata import CatalogueRefusal
from skerry.wire.v1.device import ASSIGNMENT_KEYS_TARGET, AssignmentKeys, target_path

DAY = 86_400.0
ROOT_LIFETIME = 730 * DAY
TARGETS_LIFETIME = 365 * DAY
LINE_LIFETIME = 365 * DAY
SNAPSHOT_LIFETIME = 7 * DAY
TIMESTAMP_LIFETIME = DAY

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class Line(Struct, frozen=True, kw_only=True):
    """A product line and the release keys (32 raw bytes each) that may publish in it."""

    name: str
    keys: tuple[bytes, ...]
    threshold: int = 1


def line_role(line: str) -> str:
    return f"line-{line}"


def require_name(kind: str, name: str) -> str:
    """The name back. Raises CatalogueRefused when it could mean something else in a path or a pattern."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=f"{kind} name {name!r} is not allowed")
    return name


def target_file_name(target: str, digest: str) -> str:
    """Path below the targets URL at which the bytes of a target are served: the hash stands before the file name."""
    folder, slash, name = target.rpartition("/")
    return f"{folder}{slash}{digest.removeprefix('sha256:')}.{name}"


def make_targets(lines: Sequence[Line], assignment_keys: bytes, *, expires: float, version: int = 1) -> bytes:
    """Unsigned top-level targets. `assignment_keys`: the JSON bytes served at ASSIGNMENT_KEYS_TARGET."""
    targets = Targets(version=version, expires=metadata.instant(expires))
    targets.targets[ASSIGNMENT_KEYS_TARGET] = TargetFile.from_data(ASSIGNMENT_KEYS_TARGET, assignment_keys, ["sha256"])
    targets.delegations = Delegations(keys={}, roles={})
    for line in lines:
        _delegate(targets, line)
    return Metadata(targets).to_bytes()


def add_line(targets: bytes, line: Line, *, expires: float) -> bytes:
    """Unsigned next version of the top-level targets with one more product line."""
    signed = metadata.parse(Targets, targets).signed
    if line_role(line.name) in _delegated(signed):
        raise CatalogueRefused(reason=CatalogueRefusal.EXISTS, detail=f"line {line.name} is already in the catalogue")
    _delegate(signed, line)
    signed.version += 1
    signed.expires = metadata.instant(expires)
    return Metadata(signed).to_bytes()


def name_assignment_keys(targets: bytes, assignment_keys: bytes, *, expires: float) -> bytes:
    """Unsigned next version of the top-level targets that names other assignment keys; those named before count no more."""
    signed = metadata.parse(Targets, targets).signed
    signed.targets[ASSIGNMENT_KEYS_TARGET] = TargetFile.from_data(ASSIGNMENT_KEYS_TARGET, assignment_keys, ["sha256"])
    signed.version += 1
    signed.expires = metadata.instant(expires)
    return Metadata(signed).to_bytes()


def lines_of(targets: bytes) -> tuple[str, ...]:
    return tuple(role.removeprefix("line-") for role in _delegated(metadata.parse(Targets, targets).signed))


def assignment_keys_file(public_keys: Sequence[bytes], names: Sequence[str]) -> bytes:
    """Content of ASSIGNMENT_KEYS_TARGET."""
    keys = [{"keyid": name, "public_key": key} for name, key in zip(names, public_keys, strict=True)]
    return msgspec.json.encode(msgspec.convert({"keys": keys}, AssignmentKeys))


def make_line(*, expires: float) -> bytes:
    """Unsigned, empty release role of a line."""
    return Metadata(Targets(version=1, expires=metadata.instant(expires))).to_bytes()


def releases(role: bytes) -> tuple[CatalogueEntry, ...]:
    """The bundles a release role names. `fresh_until` is the expiry of this role alone."""
    signed = metadata.parse(Targets, role).signed
    return tuple(_entry(target, signed) for target in signed.targets.values())


def add_release(role: bytes, entry: CatalogueEntry, *, keys: Sequence[Ed25519PrivateKey], expires: float) -> bytes:
    """Signed next version of a release role with one more bundle. `entry.digest` and `.size` are those of its OCI manifest.

    Raises CatalogueRefused when that version exists already, or its release_seq is not above every earlier one of the model.
    """
    signed = metadata.parse(Targets, role).signed
    for kind, name in (("line", entry.line), ("model", entry.model), ("version", entry.version)):
        require_name(kind, name)
    if entry.target != target_path(entry.line, entry.model, entry.version):
        raise CatalogueRefused(
            reason=CatalogueRefusal.WRONG_TARGET, detail=f"{entry.target} does not name {entry.model}"
        )
    _require_new(signed, entry)
    custom = {
        "line": entry.line,
        "model": entry.model,
        "version": entry.version,
        "release_seq": entry.release_seq,
        "floor_seq": entry.floor_seq,
    }
    hashes = {"sha256": entry.digest.removeprefix("sha256:")}
    signed.targets[entry.target] = TargetFile(entry.size, hashes, entry.target, {"custom": custom})
    signed.version += 1
    signed.expires = metadata.instant(expires)
    return sign_all(Metadata(signed).to_bytes(), keys)


def renew(role: bytes, *, keys: Sequence[Ed25519PrivateKey], expires: float) -> bytes:
    """Signed next version of a targets or release role with nothing new but a later expiry."""
    signed = metadata.parse(Targets, role).signed
    signed.version += 1
    signed.expires = metadata.instant(expires)
    return sign_all(Metadata(signed).to_bytes(), keys)


def sign_all(data: bytes, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    for key in keys:
        data = metadata.add_signature(data, key)
    return data


def make_snapshot(
    previous: bytes | None, roles: Mapping[str, bytes], *, key: Ed25519PrivateKey, expires: float, least: int = 1
) -> bytes:
    """Signed snapshot over `roles` (name -> bytes, top-level targets included), its version above `previous` and not below
    `least`.

    Raises CatalogueRefused when a role of `previous` is gone or older: every device would refuse it.
    """
    before = metadata.parse(Snapshot, previous).signed if previous is not None else None
    meta = {f"{name}.json": _meta(data) for name, data in roles.items()}
    for name, old in (before.meta if before is not None else {}).items():
        if name not in meta:
            raise CatalogueRefused(reason=CatalogueRefusal.ROLE_DROPPED, detail=name)
        if meta[name].version < old.version:
            raise CatalogueRefused(
                reason=CatalogueRefusal.ROLLBACK, detail=f"{name} {meta[name].version} after {old.version}"
            )
    version = max(least, 1 if before is None else before.version + 1)
    snapshot = Snapshot(version=version, expires=metadata.instant(expires), meta=meta)
    return sign_all(Metadata(snapshot).to_bytes(), (key,))


def make_timestamp(
    previous: bytes | None, snapshot: bytes, *, key: Ed25519PrivateKey, expires: float, least: int = 1
) -> bytes:
    """Signed timestamp naming `snapshot`, its version above `previous` and not below `least`."""
    version = max(least, 1 if previous is None else metadata.version_of(previous) + 1)
    timestamp = Timestamp(version=version, expires=metadata.instant(expires), snapshot_meta=_meta(snapshot))
    return sign_all(Metadata(timestamp).to_bytes(), (key,))


def verify_role(*, root: bytes, targets: bytes, role: str, data: bytes, previous: bytes | None, now: float) -> None:
    """What the hub asks of an uploaded `targets` or release role before it serves it.

    Threshold of the delegator, exactly one version further, not expired, and only additions: a published bundle never
    changes, and release numbers of a model only grow. Raises CatalogueRefused.
    """
    parsed = metadata.parse(Targets, data)
    _require_delegated(root, targets, role, data)
    before = metadata.parse(Targets, previous).signed if previous is not None else None
    expected = 1 if before is None else before.version + 1
    if parsed.signed.version != expected:
        detail = f"{role} version {parsed.signed.version}, expected {expected}"
        raise CatalogueRefused(reason=CatalogueRefusal.ROLLBACK, detail=detail)
    if parsed.signed.is_expired(metadata.instant(now)):
        raise CatalogueRefused(reason=CatalogueRefusal.FREEZE, detail=f"{role} expired at {parsed.signed.expires}")
    if role == Targets.type:
        _require_lines_kept(before, parsed.signed)
    else:
        _require_additions(role, before, parsed.signed)


def _require_delegated(root: bytes, targets: bytes, role: str, data: bytes) -> None:
    if role == Targets.type:
        metadata.require_signed(metadata.parse(Root, root), role, data)
        return
    parent = metadata.parse(Targets, targets)
    metadata.require_signed(metadata.parse(Root, root), Targets.type, targets)
    if role not in _delegated(parent.signed):
        raise CatalogueRefused(reason=CatalogueRefusal.UNSIGNED, detail=f"nobody delegated to {role}")
    metadata.require_signed(parent, role, data)


def _require_lines_kept(before: Targets | None, after: Targets) -> None:
    gone = set(_delegated(before)) - set(_delegated(after)) if before is not None else set()
    if gone:
        raise CatalogueRefused(reason=CatalogueRefusal.ROLE_DROPPED, detail=", ".join(sorted(gone)))
    if ASSIGNMENT_KEYS_TARGET not in after.targets:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=f"{ASSIGNMENT_KEYS_TARGET} is missing")


def _require_additions(role: str, before: Targets | None, after: Targets) -> None:
    known = before.targets if before is not None else {}
    for target, info in known.items():
        if after.targets.get(target) != info:
            raise CatalogueRefused(
                reason=CatalogueRefusal.ALTERED, detail=f"{target} was published before and may not change"
            )
    if after.delegations is not None:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=f"{role} may not delegate further")
    seen = Targets(version=1, expires=after.expires, targets=dict(known))
    added = [_entry(info, after) for target, info in after.targets.items() if target not in known]
    for entry in sorted(added, key=lambda item: item.release_seq):
        if line_role(entry.line) != role:
            raise CatalogueRefused(reason=CatalogueRefusal.WRONG_TARGET, detail=f"{entry.target} is not of {role}")
        _require_new(seen, entry)
        seen.targets[entry.target] = after.targets[entry.target]


def _require_new(signed: Targets, entry: CatalogueEntry) -> None:
    if entry.target in signed.targets:
        raise CatalogueRefused(
            reason=CatalogueRefusal.EXISTS, detail=f"{entry.model}:{entry.version} is already published"
        )
    earlier = [_entry(info, signed) for info in signed.targets.values()]
    newest = max((other.release_seq for other in earlier if other.model == entry.model), default=0)
    if entry.release_seq <= newest:
        detail = f"release_seq {entry.release_seq} of {entry.model} is not above {newest}: raise it and pack again"
        raise CatalogueRefused(reason=CatalogueRefusal.ROLLBACK, detail=detail)
    if entry.floor_seq > entry.release_seq:
        detail = f"floor_seq {entry.floor_seq} is above release_seq {entry.release_seq}"
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=detail)


def _entry(info: TargetFile, signed: Targets) -> CatalogueEntry:
    facts = dict(info.custom) if isinstance(info.custom, dict) else {}
    facts.update(target=info.path, digest=f"sha256:{info.hashes.get('sha256')}", size=info.length)
    facts["fresh_until"] = signed.expires.timestamp()
    try:
        entry = msgspec.convert(facts, CatalogueEntry)
    except msgspec.ValidationError as error:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=f"{info.path}: {error}") from error
    if entry.target != target_path(entry.line, entry.model, entry.version):
        raise CatalogueRefused(
            reason=CatalogueRefusal.WRONG_TARGET, detail=f"{info.path} is described as {entry.model}"
        )
    return entry


def _delegate(targets: Targets, line: Line) -> None:
    name = line_role(require_name("line", line.name))
    if not 1 <= line.threshold <= len(set(line.keys)):
        detail = f"line {line.name}: threshold {line.threshold} of {len(set(line.keys))} keys cannot work"
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=detail)
    if targets.delegations is None or targets.delegations.roles is None:
        targets.delegations = Delegations(keys={}, roles={})
    roles = targets.delegations.roles
    role = DelegatedRole(name, [], line.threshold, terminating=True, paths=[f"{line.name}/*/*"])
    if roles is not None:
        roles[name] = role
    for public_key in line.keys:
        targets.add_key(metadata.tuf_key(public_key), name)


def _delegated(targets: Targets | None) -> dict[str, DelegatedRole]:
    if targets is None or targets.delegations is None or targets.delegations.roles is None:
        return {}
    return targets.delegations.roles


def _meta(data: bytes) -> MetaFile:
    version = metadata.version_of(data)
    return MetaFile(version=version, length=len(data), hashes={"sha256": sha256(data).hexdigest()})
