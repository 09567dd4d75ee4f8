# SPDX-License-Identifier: Apache-2.0
"""A device under attack: the real catalogue client, floors, decisions and unpacking over a real disk, and its hub's owner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.ngclient import FetcherInterface

from skerry.bundle import oci, unpacked
from skerry.bundle.blob import content
from skerry.bundle.manifest import BundleConfig
from skerry.effects.disk import DiskFiles
from skerry.errors import SkerryError
from skerry.testing.clock import VirtualClock
from skerry.testing.repository import ADDRESS, TARGETS_ADDRESS, MemoryFetcher, Repository
from skerry.trust import dsse, floors
from skerry.trust.assignment import Accepted, decide_assignment, sign_assignment
from skerry.trust.catalogue import Catalogue, Source
from skerry.trust.decision import ConfigFacts, InstallPolicy, Refused, decide_fetch, decide_install
from skerry.trust.floors import Floors
from skerry.wire.v1.device import (
    ASSIGNMENT_KEYS_TARGET,
    Assignment,
    AssignmentKey,
    AssignmentKeys,
    BundleRef,
    WorkloadSpec,
    target_path,
)
from support import bundles

NOW = 1_800_000_000.0
DEVICE = "device-1"
INSTALLED = "installed"


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def keys_file(*keys: Ed25519PrivateKey) -> bytes:
    named = [AssignmentKey(keyid=dsse.key_id(public(key)), public_key=public(key)) for key in keys]
    return msgspec.json.encode(AssignmentKeys(keys=tuple(named)))


class Owner:
    """Whoever holds the keys: publishes bundles and writes assignments."""

    def __init__(self, *, lines: Sequence[str] = ("vision", "audio"), now: float = NOW) -> None:
        self.repository = Repository(now=now, lines=lines)
        self.hub_key = Ed25519PrivateKey.generate()
        self.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(self.hub_key))
        self.repository.publish("targets")

    def release(self, version: str, seq: int, *, line: str = "vision", **changes: object) -> BundleRef:
        """Build and publish a bundle; what to assign."""
        bundle = bundles.bundle(line=line, version=version, release_seq=seq, **changes)
        ref = self.upload(bundle)
        self.name(ref, bundle.manifest.data, floor_seq=bundle.config.floor_seq)
        return ref

    def upload(self, bundle: oci.Bundle) -> BundleRef:
        """Blobs on the hub; not in the catalogue yet."""
        for digest, blob in bundle.blobs.items():
            self.repository.files[f"blobs/{digest}"] = content(blob)
        config = bundle.config
        return BundleRef(
            line=config.line,
            model=config.name,
            version=config.version,
            digest=bundle.digest,
            release_seq=config.release_seq,
            target=target_path(config.line, config.name, config.version),
        )

    def name(self, ref: BundleRef, manifest: bytes, *, role: str = "", floor_seq: int = 0, **custom: object) -> None:
        """Sign a bundle into a release role, truthfully unless `custom` says otherwise."""
        role = role or f"line-{ref.line}"
        facts = {
            "line": ref.line,
            "model": ref.model,
            "version": ref.version,
            "release_seq": ref.release_seq,
            "floor_seq": floor_seq,
        }
        self.repository.add_target(ref.target, manifest, role=role, custom={**facts, **custom})
        self.repository.publish(role)

    def assign(
        self,
        *refs: BundleRef,
        sequence: int = 1,
        device: str = DEVICE,
        key: Ed25519PrivateKey | None = None,
        now: float = NOW,
        lifetime: float = 86_400.0,
    ) -> bytes:
        workloads = [WorkloadSpec(name=f"w{number}", bundle=ref) for number, ref in enumerate(refs)]
        return self.assign_workloads(*workloads, sequence=sequence, device=device, key=key, now=now, lifetime=lifetime)

    def assign_workloads(
        self,
        *workloads: WorkloadSpec,
        sequence: int = 1,
        device: str = DEVICE,
        key: Ed25519PrivateKey | None = None,
        now: float = NOW,
        lifetime: float = 86_400.0,
    ) -> bytes:
        assignment = Assignment(
            device_id=device, sequence=sequence, issued=now, expires=now + lifetime, workloads=workloads
        )
        key = key or self.hub_key
        return sign_assignment(assignment, key, dsse.key_id(public(key)))


class Victim:
    def __init__(self, folder: Path, owner: Owner, *, policy: InstallPolicy | None = None) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.store = folder / "bundles"
        self.floors_file = folder / "state" / "floors"
        self.files = DiskFiles()
        self.clock = VirtualClock(NOW)
        self.memory = MemoryFetcher(owner.repository.files)
        self.fetcher: FetcherInterface = self.memory
        self.factory_root = owner.repository.first_root
        self.policy = policy or InstallPolicy()
        self.failed: frozenset[str] = frozenset()
        self.running: dict[str, int] = {}  # line/model -> release_seq
        floors.save(self.files, self.floors_file, floors.Floors())

    def floors(self) -> Floors:
        return floors.load(self.files, self.floors_file)

    def catalogue(self) -> Catalogue:
        """A fresh client, as after a restart."""
        source = Source(metadata_url=ADDRESS, targets_url=TARGETS_ADDRESS, fetcher=self.fetcher)
        return Catalogue(
            self.metadata,
            source=source,
            targets_dir=self.folder / "targets",
            factory_root=self.factory_root,
            files=self.files,
            clock=self.clock,
        )

    def refresh(self) -> Catalogue:
        catalogue = self.catalogue()
        floors.save(self.files, self.floors_file, catalogue.refresh(self.floors()))
        return catalogue

    def refused(self) -> str:
        """The reason a refresh is refused for; "" when it is not."""
        try:
            self.refresh()
        except SkerryError as error:
            return str(error.fields.get("reason", error.code))
        return ""

    def follow(self, envelope: bytes) -> str:
        """Do what an assignment says; INSTALLED, or the reason why not."""
        try:
            return self._follow(envelope)
        except SkerryError as error:
            return str(error.fields.get("reason", type(error).__name__))

    def installed(self) -> list[str]:
        """Names in the bundle store, half-made ones included."""
        return sorted(path.name for path in self.store.iterdir()) if self.store.exists() else []

    def versions(self) -> dict[str, int]:
        """What the client has on disk as trusted: role -> version."""
        found: dict[str, int] = {}
        for path in sorted(self.metadata.glob("*.json")):
            found[path.stem] = msgspec.json.decode(path.read_bytes())["signed"]["version"]
        return found

    def stray(self) -> list[Path]:
        """Files outside the places this device writes to."""
        known = {"metadata", "bundles", "state", "targets"}
        return [path for path in self.folder.parent.rglob("*") if path.is_file() and self._top(path) not in known]

    def _top(self, path: Path) -> str:
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).parts[0] if inside else ""

    def _follow(self, envelope: bytes) -> str:
        catalogue = self.refresh()
        decision = decide_assignment(
            envelope,
            keys=catalogue.assignment_keys(),
            device_id=DEVICE,
            floors=self.floors(),
            now=self.clock.now(),
        )
        if not isinstance(decision, Accepted):
            return str(decision.reason)
        sequence = decision.assignment.sequence
        raised = floors.raise_assignment(self.floors(), sequence=sequence, digest=decision.digest, keys=decision.keys)
        floors.save(self.files, self.floors_file, raised)
        for spec in decision.assignment.workloads:
            reason = self._install(catalogue, spec)
            if reason != INSTALLED:
                return reason
        return INSTALLED

    def _install(self, catalogue: Catalogue, spec: WorkloadSpec) -> str:
        entry = catalogue.entry(spec.bundle.target)
        decide_now = partial(
            decide_install,
            spec=spec,
            entry=entry,
            floors=self.floors(),
            failed_digests=self.failed,
            now=self.clock.now(),
            policy=self.policy,
        )
        before = decide_fetch(
            spec=spec,
            entry=entry,
            floors=self.floors(),
            failed_digests=self.failed,
            now=self.clock.now(),
            policy=self.policy,
        )
        if isinstance(before, Refused) or entry is None:
            return str(before.reason) if isinstance(before, Refused) else "no entry"
        manifest = oci.parse_manifest(catalogue.manifest(entry))
        config = oci.open_config(manifest, b"".join(self._blob(manifest.config)))
        after = decide_now(facts=ConfigFacts.of(config, manifest_digest=manifest.digest))
        if isinstance(after, Refused):
            return str(after.reason)
        unpacked.materialise(manifest, self._blob, self.store / f"{config.name}-{config.version}")
        self._committed(config)
        return INSTALLED

    def _blob(self, layer: oci.Descriptor) -> Iterator[bytes]:
        yield self.memory.files[f"blobs/{layer.digest}"]

    def _committed(self, config: BundleConfig) -> None:
        key = f"{config.line}/{config.name}"
        raised = floors.raise_release(
            self.floors(),
            line=config.line,
            model=config.name,
            committed=config.release_seq,
            replaced=self.running.get(key),
            floor_seq=config.floor_seq,
        )
        floors.save(self.files, self.floors_file, raised)
        self.running[key] = config.release_seq
