# SPDX-License-Identifier: Apache-2.0
import io
import json
import tarfile

import pytest

from skerry.bundle import oci, ustar
from skerry.bundle.archive import open_archive, read_archive, read_config, write_archive
from skerry.bundle.blob import CHUNK, FileBlob, MemoryBlob, content
from skerry.bundle.digest import digest_of
from skerry.errors import DigestMismatch, InputMissing, StorageError
from support import bundles


def test_what_was_written_is_read_back():
    bundle = bundles.bundle()
    read = read_archive(io.BytesIO(bundles.archive(bundle)))
    assert (read.manifest, read.config, read.digest) == (bundle.manifest, bundle.config, bundle.digest)
    assert {path: content(read.file(path)) for path in bundles.files()} == {
        path: content(blob) for path, blob in bundles.files().items()
    }


def test_the_same_bundle_gives_the_same_bytes():
    assert bundles.archive(bundles.bundle()) == bundles.archive(bundles.bundle())
    again = io.BytesIO()
    write_archive(read_archive(io.BytesIO(bundles.archive())), again)
    assert again.getvalue() == bundles.archive()


def test_it_is_an_oci_layout_to_pythons_own_tar_reader():
    with tarfile.open(fileobj=io.BytesIO(bundles.archive())) as archive:
        members = archive.getmembers()
        contents = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert {(m.mode, m.uid, m.gid, m.mtime, m.uname, m.gname, m.type) for m in members} == {
        (0o644, 0, 0, 0, "", "", tarfile.REGTYPE)
    }
    assert json.loads(contents["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    named = json.loads(contents["index.json"])["manifests"][0]
    manifest = contents["blobs/sha256/" + named["digest"].removeprefix("sha256:")]
    assert (digest_of(manifest), len(manifest)) == (named["digest"], named["size"])
    for descriptor in [json.loads(manifest)["config"], *json.loads(manifest)["layers"]]:
        data = contents["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert (digest_of(data), len(data)) == (descriptor["digest"], descriptor["size"])


def test_an_archive_on_disk_is_read_from_disk(tmp_path):
    path = tmp_path / "a.skb"
    path.write_bytes(bundles.archive())
    bundle = open_archive(path)
    assert isinstance(bundle.file(bundles.FP32), FileBlob)
    assert content(bundle.file(bundles.FP32)) == content(bundles.files()[bundles.FP32])
    assert read_config(path) == bundle.config


def test_big_files_pass_in_pieces(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(range(256)) * 4096 * 3 + b"end")
    bundle = oci.build(
        bundles.config(), {**bundles.files(), bundles.FP32: FileBlob(weights, 0, weights.stat().st_size)}
    )
    archive = tmp_path / "big.skb"
    with archive.open("wb") as file:
        write_archive(bundle, file)
    pieces = list(open_archive(archive).file(bundles.FP32).chunks())
    assert [len(piece) for piece in pieces] == [CHUNK, CHUNK, CHUNK, 3]
    assert b"".join(pieces) == weights.read_bytes()


def test_a_source_that_changes_while_it_is_packed_is_noticed(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    bundle = oci.build(bundles.config(), {**bundles.files(), bundles.FP32: FileBlob(weights, 0, 3)})
    weights.write_bytes(b"two")
    with pytest.raises(DigestMismatch):
        write_archive(bundle, io.BytesIO())


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(InputMissing):
        open_archive(tmp_path / "none.skb")
    with pytest.raises(StorageError, match="Is a directory"):
        open_archive(tmp_path)


def test_a_name_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        open_archive(tmp_path / "file" / "a.skb")


def test_an_empty_file_in_a_bundle():
    bundle = oci.build(bundles.config(), {**bundles.files(), "empty.txt": MemoryBlob(b"")})
    assert content(read_archive(io.BytesIO(bundles.archive(bundle))).file("empty.txt")) == b""


def test_a_header_is_what_python_writes():
    info = tarfile.TarInfo("index.json")
    info.size = 1234
    block = ustar.header("index.json", 1234)
    theirs = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    assert (theirs.name, theirs.size, theirs.mode, theirs.type) == (info.name, info.size, 0o644, tarfile.REGTYPE)
    assert ustar.parse(block) == ustar.Entry(name="index.json", size=1234)


@pytest.mark.parametrize(("name", "size"), [("a" * 100, 0), ("a", -1), ("a", 8**11)])
def test_what_does_not_fit_a_header_is_a_mistake_of_the_caller(name, size):
    with pytest.raises(ValueError, match="does not fit"):
        ustar.header(name, size)
