# SPDX-License-Identifier: Apache-2.0
"""The part of the trust folder a hub gets: its three online keys, and the metadata made offline.

DIR/online/trust.json                                OnlineFacts
DIR/online/{snapshot,timestamp,assignment}.pem       private keys
DIR/online/metadata/{N.root,N.targets,N.line-X}.json signed offline
DIR/online/targets/hub/assignment-keys.json          the target that names the assignment key
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from tuf.api.metadata import Metadata, Root, Targets

from skerry.effects import Files
from skerry.errors import CatalogueRefused, CeremonyError
from skerry.trust import ceremony, dsse, keyfile, metadata, publish
from skerry.trust.metadata import CatalogueRefusal
from skerry.wire.v1.device import ASSIGNMENT_KEYS_TARGET, AssignmentKeys


class OnlineFacts(Struct, frozen=True, kw_only=True):
    """`trust.json`. Versions say which metadata files are the newest."""

    schema: Literal["skerry/trust/v1"] = "skerry/trust/v1"
    demo: bool
    lines: tuple[str, ...]
    created: float
    root_version: int = 1
    targets_version: int = 1


@dataclass(frozen=True, kw_only=True)
class OnlineTrust:
    demo: bool
    lines: tuple[str, ...]
    created: float
    roots: tuple[bytes, ...]  # versions 1..n
    roles: dict[str, bytes]  # "targets" and "line-<line>" as made offline; a running hub may hold newer line roles
    targets: dict[str, bytes]  # target path -> content
    snapshot_key: Ed25519PrivateKey
    timestamp_key: Ed25519PrivateKey
    assignment_key: Ed25519PrivateKey

    @property
    def assignment_keyid(self) -> str:
        return dsse.key_id(metadata.raw_public(self.assignment_key))

    @property
    def factory_root(self) -> bytes:
        """What a device gets when it enrols: the first root. It finds its way to the newest by itself."""
        return self.roots[0]

    @classmethod
    def load(cls, folder: Path, *, passphrase: str | None, files: Files, now: float) -> OnlineTrust:
        """Raises KeyFileError, CeremonyError or CatalogueRefused: a hub never starts on half a trust folder."""
        facts = read_facts(files, folder)
        numbers = range(1, facts.root_version + 1)
        roots = tuple(_required(files, metadata_path(folder, "root", number)) for number in numbers)
        roles = {"targets": _required(files, metadata_path(folder, "targets", facts.targets_version))}
        for line in facts.lines:
            role = publish.line_role(line)
            roles[role] = _required(files, metadata_path(folder, role, 1))
        keys = {name: _online_key(folder, name, facts, passphrase) for name in ("snapshot", "timestamp", "assignment")}
        trust = cls(
            demo=facts.demo,
            lines=facts.lines,
            created=facts.created,
            roots=roots,
            roles=roles,
            targets={ASSIGNMENT_KEYS_TARGET: _required(files, assignment_keys_path(folder))},
            snapshot_key=keys["snapshot"],
            timestamp_key=keys["timestamp"],
            assignment_key=keys["assignment"],
        )
        _check(trust, now)
        return trust


def metadata_path(folder: Path, role: str, version: int) -> Path:
    return folder / "metadata" / f"{version}.{role}.json"


def assignment_keys_path(folder: Path) -> Path:
    return folder / "targets" / ASSIGNMENT_KEYS_TARGET


def read_facts(files: Files, folder: Path) -> OnlineFacts:
    """Raises CeremonyError when `folder` is no online trust folder."""
    try:
        return msgspec.json.decode(_required(files, folder / "trust.json"), type=OnlineFacts)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CeremonyError(problem=f"{folder / 'trust.json'}: {error}") from error


def write_facts(files: Files, folder: Path, facts: OnlineFacts) -> None:
    files.write(folder / "trust.json", msgspec.json.format(msgspec.json.encode(facts)))


def _required(files: Files, path: Path) -> bytes:
    data = files.read(path)
    if data is None:
        raise CeremonyError(problem=f"{path} is missing; is this the folder `skerry keys init` made?")
    return data


def _online_key(folder: Path, name: str, facts: OnlineFacts, passphrase: str | None) -> Ed25519PrivateKey:
    return keyfile.read_private(folder / f"{name}.pem", passphrase=passphrase, allow_plain=facts.demo)


def _check(trust: OnlineTrust, now: float) -> None:
    status = ceremony.root_status(trust.roots[0])
    if not status.complete:
        problem = f"root {status.version} lacks {status.missing} signature(s); sign it with `skerry keys root sign`"
        raise CeremonyError(problem=problem)
    for older, newer in zip(trust.roots, trust.roots[1:], strict=False):
        if not ceremony.root_status(newer, older).complete:
            raise CeremonyError(problem=f"root {metadata.version_of(newer)} is not signed by both thresholds")
    root = metadata.parse(Root, trust.roots[-1])
    if root.signed.is_expired(metadata.instant(now)):
        raise CatalogueRefused(reason=CatalogueRefusal.FREEZE, detail=f"root version {root.signed.version} is expired")
    for role, key in (("snapshot", trust.snapshot_key), ("timestamp", trust.timestamp_key)):
        if metadata.tuf_key(metadata.raw_public(key)).keyid not in root.signed.roles[role].keyids:
            raise CeremonyError(problem=f"the root does not name this {role} key")
    _check_targets(trust, root)


def _check_targets(trust: OnlineTrust, root: Metadata[Root]) -> None:
    metadata.require_signed(root, "targets", trust.roles["targets"])
    targets = metadata.parse(Targets, trust.roles["targets"])
    for line in trust.lines:
        role = publish.line_role(line)
        metadata.require_signed(targets, role, trust.roles[role])
    content = trust.targets[ASSIGNMENT_KEYS_TARGET]
    info = targets.signed.targets.get(ASSIGNMENT_KEYS_TARGET)
    if info is None or info.hashes.get("sha256") != sha256(content).hexdigest():
        raise CeremonyError(problem=f"{ASSIGNMENT_KEYS_TARGET} is not the signed one")
    named = msgspec.json.decode(content, type=AssignmentKeys)
    if trust.assignment_keyid not in {key.keyid for key in named.keys}:
        raise CeremonyError(problem="the catalogue does not name this assignment key")
