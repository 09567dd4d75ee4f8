# SPDX-License-Identifier: Apache-2.0
"""The trust folder of an organisation, as `skerry keys init` makes it.

DIR/root-1.pem ...      root keys, offline, spread over as many people (absent when their public keys were given)
DIR/targets.pem         offline: names lines and the assignment key
DIR/line-<line>.pem     offline: signs the releases of one product line
DIR/online/             all a hub gets; see trust.online
Beside every private key lies its public half (.pub). `trust.json` is written last: a folder without it is not finished.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from skerry.effects import Files
from skerry.errors import CeremonyError, FileExists
from skerry.trust import ceremony, dsse, keyfile, metadata, online, publish

ONLINE = "online"
_ONLINE_KEYS = ("snapshot", "timestamp", "assignment")


class FolderPlan(Struct, frozen=True, kw_only=True):
    """`root_keys`: public keys (32 raw bytes) of holders who made theirs themselves; empty = make `root_count` here."""

    lines: tuple[str, ...]
    demo: bool = False
    root_keys: tuple[bytes, ...] = ()
    root_count: int = 3
    root_threshold: int = 2


class Passphrases(Struct, frozen=True, kw_only=True):
    """None leaves keys unencrypted, which only a demo folder may do."""

    offline: str | None
    online: str | None


def demo_plan(lines: tuple[str, ...]) -> FolderPlan:
    """One unencrypted root key: to try things out, never to protect anything."""
    return FolderPlan(lines=lines, demo=True, root_count=1, root_threshold=1)


def files_of(folder: Path, plan: FolderPlan) -> tuple[Path, ...]:
    """Private keys and metadata that `make` would write."""
    hub = folder / ONLINE
    roots = () if plan.root_keys else tuple(f"root-{number}" for number in range(1, plan.root_count + 1))
    offline = (*roots, "targets", *(publish.line_role(line) for line in plan.lines))
    roles = ("root", "targets", *(publish.line_role(line) for line in plan.lines))
    return (
        *(folder / f"{name}.pem" for name in offline),
        *(hub / f"{name}.pem" for name in _ONLINE_KEYS),
        *(online.metadata_path(hub, role, 1) for role in roles),
        online.assignment_keys_path(hub),
        hub / "trust.json",
    )


def make(folder: Path, plan: FolderPlan, *, passphrases: Passphrases, files: Files, now: float) -> ceremony.RootStatus:
    """Keys, root, targets and empty release roles. Raises FileExists, CeremonyError, KeyFileError, StorageError.

    The root comes signed when its keys were made here, else it waits for `skerry keys root sign` by each holder.
    """
    _check(folder, plan, passphrases, files)
    hub = folder / ONLINE
    roots = [] if plan.root_keys else _new_keys(files, folder, _root_names(plan), passphrases.offline)
    (targets_key,) = _new_keys(files, folder, ("targets",), passphrases.offline)
    line_keys = _new_keys(files, folder, tuple(map(publish.line_role, plan.lines)), passphrases.offline)
    snapshot, timestamp, assignment = _new_keys(files, hub, _ONLINE_KEYS, passphrases.online)
    root = ceremony.make_root(
        ceremony.RootPlan(
            root_keys=plan.root_keys or tuple(map(metadata.raw_public, roots)),
            root_threshold=plan.root_threshold,
            targets_keys=(metadata.raw_public(targets_key),),
            snapshot_key=metadata.raw_public(snapshot),
            timestamp_key=metadata.raw_public(timestamp),
        ),
        expires=now + publish.ROOT_LIFETIME,
    )
    root = publish.sign_all(root, roots)
    public = metadata.raw_public(assignment)
    keys_file = publish.assignment_keys_file((public,), (dsse.key_id(public),))
    lines = [
        publish.Line(name=name, keys=(metadata.raw_public(key),))
        for name, key in zip(plan.lines, line_keys, strict=True)
    ]
    targets = publish.make_targets(lines, keys_file, expires=now + publish.TARGETS_LIFETIME)
    files.write(online.metadata_path(hub, "root", 1), root)
    files.write(online.metadata_path(hub, "targets", 1), publish.sign_all(targets, (targets_key,)))
    for name, key in zip(plan.lines, line_keys, strict=True):
        _write_line(files, hub, name, key, now)
    files.write(online.assignment_keys_path(hub), keys_file)
    online.write_facts(files, hub, online.OnlineFacts(demo=plan.demo, lines=plan.lines, created=now))
    return ceremony.root_status(root)


def add_line(folder: Path, line: str, *, passphrase: str | None, files: Files, now: float) -> Path:
    """A new product line with a key of its own; the path of that key. Raises CatalogueRefused, KeyFileError.

    Safe to repeat after a crash: a key that was made before it is the line's.
    """
    hub = folder / ONLINE
    facts, current = _current_targets(files, hub)
    targets_key = keyfile.read_private(folder / "targets.pem", passphrase=passphrase, allow_plain=facts.demo)
    path = folder / f"{publish.line_role(publish.require_name('line', line))}.pem"
    secret = None if facts.demo else passphrase
    made_before = files.read(path) is not None
    key = keyfile.read_private(path, passphrase=secret) if made_before else keyfile.generate()
    wanted = publish.Line(name=line, keys=(metadata.raw_public(key),))
    targets = publish.add_line(current, wanted, expires=now + publish.TARGETS_LIFETIME)
    if not made_before:
        keyfile.write_private(files, path, key, passphrase=secret)
    keyfile.write_public(files, path.with_suffix(".pub"), metadata.raw_public(key))
    _write_line(files, hub, line, key, now)
    version = facts.targets_version + 1
    files.write(online.metadata_path(hub, "targets", version), publish.sign_all(targets, (targets_key,)))
    changed = msgspec.structs.replace(facts, lines=(*facts.lines, line), targets_version=version)
    online.write_facts(files, hub, changed)
    return path


def renew_targets(folder: Path, *, passphrase: str | None, files: Files, now: float) -> int:
    """The next version of the top-level targets, with a later expiry date and nothing else new; its version."""
    hub = folder / ONLINE
    facts, current = _current_targets(files, hub)
    key = keyfile.read_private(folder / "targets.pem", passphrase=passphrase, allow_plain=facts.demo)
    version = facts.targets_version + 1
    renewed = publish.renew(current, keys=(key,), expires=now + publish.TARGETS_LIFETIME)
    files.write(online.metadata_path(hub, "targets", version), renewed)
    online.write_facts(files, hub, msgspec.structs.replace(facts, targets_version=version))
    return version


def replace_assignment_key(folder: Path, *, passphrases: Passphrases, files: Files, now: float) -> str:
    """A new assignment key for the hub, and targets that name it and no other; its name.

    For a stolen key: devices stop believing the old one at their next refresh. Safe to repeat after a crash.
    """
    hub = folder / ONLINE
    facts, current = _current_targets(files, hub)
    targets_key = keyfile.read_private(folder / "targets.pem", passphrase=passphrases.offline, allow_plain=facts.demo)
    if not facts.demo and not passphrases.online:
        raise CeremonyError(problem="keys without a passphrase are for demo trust only")
    key = keyfile.generate()
    public = metadata.raw_public(key)
    keys_file = publish.assignment_keys_file((public,), (dsse.key_id(public),))
    targets = publish.name_assignment_keys(current, keys_file, expires=now + publish.TARGETS_LIFETIME)
    path = hub / "assignment.pem"
    files.remove(path)
    keyfile.write_private(files, path, key, passphrase=None if facts.demo else passphrases.online)
    keyfile.write_public(files, path.with_suffix(".pub"), public)
    version = facts.targets_version + 1
    files.write(online.metadata_path(hub, "targets", version), publish.sign_all(targets, (targets_key,)))
    files.write(online.assignment_keys_path(hub), keys_file)
    online.write_facts(files, hub, msgspec.structs.replace(facts, targets_version=version))
    return dsse.key_id(public)


def _current_targets(files: Files, hub: Path) -> tuple[online.OnlineFacts, bytes]:
    facts = online.read_facts(files, hub)
    current = files.read(online.metadata_path(hub, "targets", facts.targets_version))
    if current is None:
        raise CeremonyError(problem=f"targets {facts.targets_version} is missing in {hub}")
    return facts, current


def adopt_root(folder: Path, root: bytes, *, files: Files, now: float) -> int:
    """Put a fully signed next root into the online folder; its version. Raises CatalogueRefused, CeremonyError."""
    hub = folder / ONLINE
    facts = online.read_facts(files, hub)
    current = files.read(online.metadata_path(hub, "root", facts.root_version))
    if current is None:
        raise CeremonyError(problem=f"root {facts.root_version} is missing in {hub}")
    ceremony.verify_next_root(current, root, now=now)
    version = facts.root_version + 1
    files.write(online.metadata_path(hub, "root", version), root)
    online.write_facts(files, hub, msgspec.structs.replace(facts, root_version=version))
    return version


def _check(folder: Path, plan: FolderPlan, passphrases: Passphrases, files: Files) -> None:
    if not plan.lines or len(set(plan.lines)) != len(plan.lines):
        raise CeremonyError(problem="name at least one product line, each once")
    for line in plan.lines:
        publish.require_name("line", line)
    if not plan.demo and not (passphrases.offline and passphrases.online):
        raise CeremonyError(problem="keys without a passphrase are for demo trust only")
    for path in files_of(folder, plan):
        if files.read(path) is not None:
            raise FileExists(path=str(path))


def _root_names(plan: FolderPlan) -> tuple[str, ...]:
    return tuple(f"root-{number}" for number in range(1, plan.root_count + 1))


def _new_keys(files: Files, folder: Path, names: tuple[str, ...], passphrase: str | None) -> list[Ed25519PrivateKey]:
    made = []
    for name in names:
        key = keyfile.generate()
        keyfile.write_private(files, folder / f"{name}.pem", key, passphrase=passphrase)
        keyfile.write_public(files, folder / f"{name}.pub", metadata.raw_public(key))
        made.append(key)
    return made


def _write_line(files: Files, hub: Path, line: str, key: Ed25519PrivateKey, now: float) -> None:
    role = publish.make_line(expires=now + publish.LINE_LIFETIME)
    files.write(online.metadata_path(hub, publish.line_role(line), 1), publish.sign_all(role, (key,)))
