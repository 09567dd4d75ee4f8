# SPDX-License-Identifier: Apache-2.0
"""From `keys init` over the hub's online keys to the device: made by trust.publish, read by trust.catalogue."""

from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from skerry.effects.disk import DiskFiles
from skerry.errors import CatalogueRefused, CeremonyError, FileExists
from skerry.testing.clock import VirtualClock
from skerry.testing.repository import ADDRESS, TARGETS_ADDRESS, MemoryFetcher
from skerry.trust import ceremony, folder, keyfile, metadata, publish
from skerry.trust.catalogue import Catalogue, Source
from skerry.trust.decision import CatalogueEntry
from skerry.trust.floors import Floors
from skerry.trust.online import OnlineTrust
from skerry.wire.v1.device import target_path
from support.victim import NOW

FILES = DiskFiles()
MANIFEST = b'{"schemaVersion": 2}'


@dataclass
class Hub:
    """What a hub does with its share of the trust folder, without the hub."""

    trust: OnlineTrust
    files: dict[str, bytes] = field(default_factory=dict)
    snapshot: bytes | None = None
    timestamp: bytes | None = None

    def serve(self):
        for number, root in enumerate(self.trust.roots, start=1):
            self.files[f"{number}.root.json"] = root
        for role, data in self.trust.roles.items():
            self.files[f"{metadata.version_of(data)}.{role}.json"] = data
        for path, content in self.trust.targets.items():
            self.files[f"targets/{publish.target_file_name(path, sha256(content).hexdigest())}"] = content
        self.snapshot = publish.make_snapshot(
            self.snapshot, self.trust.roles, key=self.trust.snapshot_key, expires=NOW + publish.SNAPSHOT_LIFETIME
        )
        self.timestamp = publish.make_timestamp(
            self.timestamp, self.snapshot, key=self.trust.timestamp_key, expires=NOW + publish.TIMESTAMP_LIFETIME
        )
        self.files[f"{metadata.version_of(self.snapshot)}.snapshot.json"] = self.snapshot
        self.files["timestamp.json"] = self.timestamp
        return self


@pytest.fixture
def keys(tmp_path):
    where = tmp_path / "keys"
    none = folder.Passphrases(offline=None, online=None)
    folder.make(where, folder.demo_plan(("vision",)), passphrases=none, files=FILES, now=NOW)
    return where


def load(keys):
    return OnlineTrust.load(keys / "online", passphrase=None, files=FILES, now=NOW)


def device(tmp_path, hub, files=FILES):
    return Catalogue(
        tmp_path / "metadata",
        source=Source(metadata_url=ADDRESS, targets_url=TARGETS_ADDRESS, fetcher=MemoryFetcher(hub.files)),
        targets_dir=tmp_path / "targets",
        factory_root=hub.trust.factory_root,
        files=files,
        clock=VirtualClock(NOW),
    )


def entry(version="1.0.0", seq=1, line="vision"):
    return CatalogueEntry(
        target=target_path(line, "digits", version),
        digest=f"sha256:{sha256(MANIFEST).hexdigest()}",
        size=len(MANIFEST),
        line=line,
        model="digits",
        version=version,
        release_seq=seq,
        floor_seq=0,
    )


def test_device_trusts_the_hubs_assignment_key(tmp_path, keys):
    hub = Hub(load(keys)).serve()
    catalogue = device(tmp_path, hub)
    floors = catalogue.refresh(Floors())
    (named,) = catalogue.assignment_keys().keys
    assert named.keyid == hub.trust.assignment_keyid
    assert floors.time == NOW
    assert (floors.catalogue.timestamp, floors.catalogue.root) == (1, 1)


def test_release_reaches_the_device(tmp_path, keys):
    hub = Hub(load(keys))
    line_key = keyfile.read_private(keys / "line-vision.pem", passphrase=None)
    role = publish.add_release(
        hub.trust.roles["line-vision"], entry(), keys=(line_key,), expires=NOW + publish.LINE_LIFETIME
    )
    publish.verify_role(
        root=hub.trust.roots[-1],
        targets=hub.trust.roles["targets"],
        role="line-vision",
        data=role,
        previous=hub.trust.roles["line-vision"],
        now=NOW,
    )
    hub.trust.roles["line-vision"] = role
    hub.files[f"targets/{publish.target_file_name(entry().target, entry().digest)}"] = MANIFEST
    catalogue = device(tmp_path, hub.serve())
    catalogue.refresh(Floors())
    found = catalogue.entry(entry().target)
    assert found is not None
    assert found.fresh_until == NOW + publish.TIMESTAMP_LIFETIME
    assert (found.digest, found.release_seq, found.size) == (entry().digest, 1, len(MANIFEST))
    assert catalogue.manifest(found) == MANIFEST
    assert publish.releases(role)[0].target == found.target


class CountingFiles(DiskFiles):
    """python-tuf renames without fsync: what matters is that somebody syncs after it wrote."""

    def __init__(self):
        self.synced = []

    def sync_tree(self, path):
        self.synced.append(sorted(file.name for file in path.rglob("*.json")))
        super().sync_tree(path)


def test_all_metadata_is_synced_before_it_counts(tmp_path, keys):
    hub = Hub(load(keys)).serve()
    files = CountingFiles()
    catalogue = device(tmp_path, hub, files=files)
    catalogue.refresh(Floors())
    assert {"root.json", "snapshot.json", "targets.json", "timestamp.json"} <= set(files.synced[-1])
    catalogue.entry(entry().target)
    assert "line-vision.json" in files.synced[-1]
    hub.files["timestamp.json"] = b"{}"
    count = len(files.synced)
    with pytest.raises(CatalogueRefused):
        catalogue.refresh(Floors())
    assert len(files.synced) == count + 1


def test_nothing_is_answered_before_the_first_refresh(tmp_path, keys):
    with pytest.raises(CatalogueRefused):
        device(tmp_path, Hub(load(keys)).serve()).entry("vision/digits/1.0.0.json")


def test_line_added_later_reaches_the_device(tmp_path, keys):
    folder.add_line(keys, "audio", passphrase=None, files=FILES, now=NOW)
    trust = load(keys)
    assert trust.lines == ("vision", "audio")
    assert publish.lines_of(trust.roles["targets"]) == ("vision", "audio")
    catalogue = device(tmp_path, Hub(trust).serve())
    catalogue.refresh(Floors())
    assert catalogue.entry("audio/digits/1.0.0.json") is None
    with pytest.raises(CatalogueRefused):
        folder.add_line(keys, "audio", passphrase=None, files=FILES, now=NOW)


def test_next_root_reaches_the_device(tmp_path, keys):
    hub = Hub(load(keys)).serve()
    first = device(tmp_path, hub)
    floors = first.refresh(Floors())
    holder = keyfile.read_private(keys / "root-1.pem", passphrase=None)
    plan = ceremony.plan_of(hub.trust.roots[-1])
    unsigned = ceremony.next_root(hub.trust.roots[-1], plan, expires=NOW + publish.ROOT_LIFETIME)
    with pytest.raises(CatalogueRefused):
        folder.adopt_root(keys, unsigned, files=FILES, now=NOW)
    assert folder.adopt_root(keys, metadata.add_signature(unsigned, holder), files=FILES, now=NOW) == 2
    hub.trust = load(keys)
    assert device(tmp_path, hub.serve()).refresh(floors).catalogue.root == 2


def test_folder_is_never_made_over_another(keys):
    none = folder.Passphrases(offline=None, online=None)
    with pytest.raises(FileExists):
        folder.make(keys, folder.demo_plan(("vision",)), passphrases=none, files=FILES, now=NOW)


def test_two_of_three_made_apart(tmp_path):
    """Holders make their keys alone; the folder's root waits for two of their signatures."""
    publics = tuple(keyfile.write_pair(FILES, tmp_path / f"{name}.pem", passphrase=name) for name in "abc")
    plan = folder.FolderPlan(lines=("vision",), root_keys=publics)
    secrets = folder.Passphrases(offline="offline", online="online")
    status = folder.make(tmp_path / "keys", plan, passphrases=secrets, files=FILES, now=NOW)
    assert (status.missing, len(status.unsigned)) == (2, 3)
    online = tmp_path / "keys" / "online"
    root = online / "metadata" / "1.root.json"
    for missing, name in ((1, "a"), (0, "c")):
        with pytest.raises(CeremonyError):
            OnlineTrust.load(online, passphrase="online", files=FILES, now=NOW)
        key = keyfile.read_private(tmp_path / f"{name}.pem", passphrase=name)
        FILES.write(root, metadata.add_signature(root.read_bytes(), key))
        assert ceremony.root_status(root.read_bytes()).missing == missing
    assert not OnlineTrust.load(online, passphrase="online", files=FILES, now=NOW).demo
    ceremony.verify_first_root(root.read_bytes(), now=NOW)


def test_role_kept_offline_may_be_renewed_without_a_new_bundle(keys):
    trust = load(keys)
    line_key = keyfile.read_private(keys / "line-vision.pem", passphrase=None)
    renewed = publish.renew(trust.roles["line-vision"], keys=(line_key,), expires=NOW + publish.DAY)
    publish.verify_role(
        root=trust.roots[-1],
        targets=trust.roles["targets"],
        role="line-vision",
        data=renewed,
        previous=trust.roles["line-vision"],
        now=NOW,
    )
    assert metadata.expires_of(renewed) == NOW + publish.DAY
