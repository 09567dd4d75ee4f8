# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from skerry.agent.state import Layout
from skerry.agent.store import Marker, Store, StoredFile
from skerry.bundle.digest import digest_of
from skerry.effects.disk import DiskFiles
from skerry.errors import DigestMismatch, ManifestError
from skerry.testing.files import MemoryFiles
from support import bundles

LAYOUT = Layout(Path("/s"))
DATA = b"weights" * 50
DIGEST = digest_of(DATA)
BUNDLE = digest_of(b"manifest")


@pytest.fixture
def files():
    return MemoryFiles()


@pytest.fixture
def store(files):
    return Store(files, LAYOUT)


def marker() -> Marker:
    file = StoredFile(path="models/m.onnx", digest=DIGEST, size=len(DATA))
    return Marker(digest=BUNDLE, variant="fp32", files=(file,))


def unpacked(store: Store) -> None:
    store.add(DIGEST, DATA)
    store.unpack(marker())


def test_download_is_visible_only_when_its_digest_is_right(store):
    store.receive(DIGEST, DATA[:100])
    assert (store.received(DIGEST), store.has(DIGEST)) == (100, False)
    store.receive(DIGEST, DATA[100:])
    assert not store.has(DIGEST)
    store.finish(DIGEST)
    assert store.read(DIGEST) == DATA
    assert store.received(DIGEST) == 0


def test_wrong_download_is_thrown_away(store):
    store.receive(DIGEST, b"x" * len(DATA))
    with pytest.raises(DigestMismatch):
        store.finish(DIGEST)
    assert (store.received(DIGEST), store.has(DIGEST)) == (0, False)
    with pytest.raises(DigestMismatch):
        store.add(DIGEST, b"other")


def test_rotten_blob_is_not_read(store, files):
    store.add(DIGEST, DATA)
    files.write(store.blob_path(DIGEST), b"rotten")
    with pytest.raises(DigestMismatch):
        store.read(DIGEST)
    store.drop_damaged(DIGEST)
    assert not store.has(DIGEST)


def test_bundle_exists_from_its_marker_on_and_is_checked_in_full(store, files):
    assert store.flaw(BUNDLE, "fp32") == "it is not unpacked"
    unpacked(store)
    assert store.unpacked(BUNDLE, "fp32")
    assert not store.unpacked(BUNDLE, "int8")
    assert store.flaw(BUNDLE, "fp32") == ""
    path = store.folder(BUNDLE) / "models/m.onnx"
    files.write(path, b"X" + DATA[1:])
    assert store.flaw(BUNDLE, "fp32") == "models/m.onnx was altered"
    files.remove(path)
    assert store.flaw(BUNDLE, "fp32") == "models/m.onnx is missing or has another size"


def test_unpacking_leaves_nothing_of_what_was_there(store, files):
    files.write(store.folder(BUNDLE) / "stray", b"of another try")
    unpacked(store)
    assert files.names(store.folder(BUNDLE)) == ("models",)


@pytest.mark.parametrize(
    "data", [b"{", b"", b"\xff", b"[" * 100_000, b'{"digest":"sha256:0","variant":"fp32","files":[]}']
)
def test_a_marker_that_cannot_be_read_or_is_anothers_makes_no_bundle(store, files, data):
    unpacked(store)
    files.write(LAYOUT.bundles / f"{BUNDLE.removeprefix('sha256:')}.json", data)
    assert store.marker(BUNDLE) is None
    assert store.flaw(BUNDLE, "fp32") == "it is not unpacked"


def test_what_runners_derived_goes_with_the_bundle(store, files):
    unpacked(store)
    files.write(LAYOUT.cache / BUNDLE.removeprefix("sha256:") / "key-digest", b"derived")
    store.drop(BUNDLE)
    assert not any(path.is_relative_to(LAYOUT.cache) for path in files.paths())


def test_collect_keeps_what_is_wanted_and_nothing_else(store, files):
    unpacked(store)
    store.receive(digest_of(b"other"), b"oth")
    store.add(digest_of(b"stray"), b"stray")
    assert store.collect({BUNDLE}) == 2
    assert store.flaw(BUNDLE, "fp32") == ""
    store.collect(set())
    assert files.paths() == ()


def test_collect_clears_a_write_that_was_cut_short(tmp_path):
    """It lies beside the markers under a name of its own; on a real disk it is a file where folders are expected."""
    disk = DiskFiles()
    layout = Layout(tmp_path)
    unpacked(Store(disk, layout))
    cut = layout.bundles / f".{BUNDLE[7:]}.json.0a1b2c3d.new"
    cut.write_bytes(b"{")
    (layout.bundles / "lost+found").mkdir()
    Store(disk, layout).collect({BUNDLE})
    assert not cut.exists()
    assert (layout.bundles / "lost+found").is_dir()
    assert Store(disk, layout).flaw(BUNDLE, "fp32") == ""


@pytest.mark.parametrize("digest", ["sha256:..", "..", "sha256:../workloads", ""])
def test_only_digests_become_paths(tmp_path, digest):
    precious = tmp_path / "device.json"
    precious.write_text("{}")
    store = Store(DiskFiles(), Layout(tmp_path))
    for act in (store.drop, store.has, store.restart, store.marker):
        with pytest.raises(ManifestError):
            act(digest)
    assert precious.exists()


def test_collect_keeps_a_bundle_that_is_still_being_fetched(store):
    bundle = bundles.bundle()
    store.add(bundle.digest, bundle.manifest.data)
    model = bundle.manifest.files[0]
    store.receive(model.digest, b"first bytes")
    store.collect({bundle.digest})
    assert store.received(model.digest) == len(b"first bytes")
    assert store.has(bundle.digest)
