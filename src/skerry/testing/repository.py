# SPDX-License-Identifier: Apache-2.0
"""A catalogue in memory that its owner, or a thief of its keys, can bend: rotate, expire, roll back, forge.

Real signed metadata, made with python-tuf alone and without the checks of trust.publish, which an attacker would not run.
`files` is what a web server would serve: path below the catalogue's address -> bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets
from tuf.api.metadata import Timestamp as TimestampRole
from tuf.ngclient import FetcherInterface

DAY = 86_400.0
ADDRESS = "https://hub.test/catalogue"
TARGETS_ADDRESS = f"{ADDRESS}/targets"
_LIFETIMES = {"root": 730 * DAY, "targets": 365 * DAY, "snapshot": 7 * DAY, "timestamp": DAY}
_NOT_FOUND = 404

S = TypeVar("S", Targets, Snapshot, TimestampRole)
Signed = Root | Targets | Snapshot | TimestampRole


class Repository:
    """Root 2 of 3, one key for every other role, one delegation per line. Everything public may be changed before `publish`."""

    def __init__(self, *, now: float, lines: Sequence[str] = ("vision",)) -> None:
        self.now = now
        self.files: dict[str, bytes] = {}
        self.keys: dict[str, list[Ed25519PrivateKey]] = {
            role: [Ed25519PrivateKey.generate() for _ in range(3 if role == "root" else 1)]
            for role in ("root", "targets", "snapshot", "timestamp", *(f"line-{line}" for line in lines))
        }
        self.root = Root(version=1, consistent_snapshot=True)
        self.root.roles["root"] = Role([], 2)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for key in self.keys[role]:
                self.root.add_key(CryptoSigner(key).public_key, role)
        self.targets = _unpublished(Targets())
        self.targets.delegations = Delegations(keys={}, roles={})
        self.snapshot = _unpublished(Snapshot())
        self.timestamp = _unpublished(TimestampRole())
        self.lines: dict[str, Targets] = {}
        for line in lines:
            self.delegate(line)
        self.publish_root()
        self.publish(*self.lines)

    # --- owner ---

    def delegate(self, line: str) -> None:
        role = f"line-{line}"
        self.keys.setdefault(role, [Ed25519PrivateKey.generate()])
        delegations = self.targets.delegations
        if delegations is None or delegations.roles is None:
            raise AssertionError("this repository delegates by name")
        delegations.roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=[f"{line}/*/*"])
        for key in self.keys[role]:
            self.targets.add_key(CryptoSigner(key).public_key, role)
        self.lines[role] = _unpublished(Targets())

    def add_target(self, path: str, content: bytes, *, role: str = "targets", custom: object = None) -> None:
        """Name `content` in `role` and serve it; not visible before `publish`."""
        info = TargetFile.from_data(path, content, ["sha256"])
        if custom is not None:
            info.unrecognized_fields["custom"] = custom
        self._targets(role).targets[path] = info
        self.files[f"targets/{target_file(path, content)}"] = content

    def publish(self, *changed: str) -> None:
        """New versions of the changed targets roles and of snapshot and timestamp, signed by their keys."""
        for role in {"targets", *changed} if self.targets.version == 0 else changed:
            signed = self._targets(role)
            signed.version += 1
            signed.expires = self._expiry(_LIFETIMES["targets"])
            self.files[f"{signed.version}.{role}.json"] = self.sign(signed, role)
        self.publish_snapshot()
        self.publish_timestamp()

    def publish_root(self, *, signers: Sequence[Ed25519PrivateKey] | None = None) -> None:
        """Serve `root` as it stands, signed by all of its keys or by `signers`."""
        self.root.expires = self._expiry(_LIFETIMES["root"])
        self.files[f"{self.root.version}.root.json"] = signed_bytes(self.root, signers or self.keys["root"])

    def publish_snapshot(self) -> None:
        self.snapshot.version += 1
        self.snapshot.expires = self._expiry(_LIFETIMES["snapshot"])
        for role in ("targets", *self.lines):
            name = f"{self._targets(role).version}.{role}.json"
            if name in self.files:
                self.snapshot.meta[f"{role}.json"] = meta(self._targets(role).version, self.files[name])
        self.files[f"{self.snapshot.version}.snapshot.json"] = self.sign(self.snapshot, "snapshot")

    def publish_timestamp(self) -> None:
        self.timestamp.version += 1
        self.timestamp.expires = self._expiry(_LIFETIMES["timestamp"])
        snapshot = self.files[f"{self.snapshot.version}.snapshot.json"]
        self.timestamp.snapshot_meta = meta(self.snapshot.version, snapshot)
        self.files["timestamp.json"] = self.sign(self.timestamp, "timestamp")

    def rotate_root(self) -> None:
        """The next root: new root keys, signed by the old and the new ones."""
        old = self.keys["root"]
        for key in old:
            self.root.revoke_key(CryptoSigner(key).public_key.keyid, "root")
        self.keys["root"] = [Ed25519PrivateKey.generate() for _ in range(3)]
        for key in self.keys["root"]:
            self.root.add_key(CryptoSigner(key).public_key, "root")
        self.root.version += 1
        self.publish_root(signers=[*old, *self.keys["root"]])

    def replace_online_keys(self) -> None:
        """New snapshot and timestamp keys, version numbers starting anew, as after a theft of the old ones."""
        for role in ("snapshot", "timestamp"):
            self.root.revoke_key(CryptoSigner(self.keys[role][0]).public_key.keyid, role)
            self.keys[role] = [Ed25519PrivateKey.generate()]
            self.root.add_key(CryptoSigner(self.keys[role][0]).public_key, role)
        self.root.version += 1
        self.publish_root()
        self.snapshot.version = self.timestamp.version = 0
        self.publish_snapshot()
        self.publish_timestamp()

    # --- owner or thief ---

    def sign(self, signed: Signed, role: str) -> bytes:
        return signed_bytes(signed, self.keys[role])

    def recorded(self) -> dict[str, bytes]:
        """What is served now, to be served again later."""
        return dict(self.files)

    @property
    def first_root(self) -> bytes:
        return self.files["1.root.json"]

    def _targets(self, role: str) -> Targets:
        return self.targets if role == "targets" else self.lines[role]

    def _expiry(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(int(self.now + seconds), UTC)


def _unpublished(signed: S) -> S:
    """Before its first version, which `publish` makes."""
    signed.version = 0
    return signed


def signed_bytes(signed: Signed, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    for key in keys:
        metadata.sign(CryptoSigner(key), append=True)
    return metadata.to_bytes()


def meta(version: int, data: bytes) -> MetaFile:
    return MetaFile(version=version, length=len(data), hashes={"sha256": sha256(data).hexdigest()})


def target_file(path: str, content: bytes) -> str:
    """Where a client with consistent snapshots asks for a target."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256(content).hexdigest()}.{name}"


class MemoryFetcher(FetcherInterface):
    """Serves `files` as ADDRESS. `instead` replaces an answer: bytes, an endless iterator, or an error raised on the way."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.instead: dict[str, Callable[[], Iterator[bytes]]] = {}
        self.requests: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(f"{ADDRESS}/")
        self.requests.append(path)
        if path in self.instead:
            yield from self.instead[path]()
            return
        if path not in self.files:
            raise DownloadHTTPError(f"{path} is not here", _NOT_FOUND)
        yield self.files[path]
