# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from skerry.bundle.blob import content
from skerry.bundle.unpacked import check_folder, materialise, read_config, unpack
from skerry.errors import (
    DigestMismatch,
    ExecutableFormat,
    FileExists,
    ManifestError,
    MissingEntry,
    SizeLie,
    StorageError,
    UndeclaredEntry,
)
from support import bundles


@pytest.fixture
def folder(tmp_path):
    unpack(bundles.bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_files_lie_at_their_paths(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"skerry.json", *bundles.files()}
    for path, blob in bundles.files().items():
        assert (folder / path).read_bytes() == content(blob)
    assert read_config(folder) == bundles.bundle().config
    check_folder(bundles.bundle().manifest, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").touch()
    with pytest.raises(FileExists):
        unpack(bundles.bundle(), tmp_path / "bundle")
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "mine"]


def test_what_a_crash_left_behind_is_cleared_away(tmp_path):
    (tmp_path / ".bundle.partial" / "models").mkdir(parents=True)
    (tmp_path / ".bundle.partial" / "old").touch()
    unpack(bundles.bundle(), tmp_path / "bundle")
    check_folder(bundles.bundle().manifest, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def endless(_):
    while True:
        yield bytes(4096)


@pytest.mark.parametrize(
    ("read_blob", "error"),
    [
        (lambda layer: [bytes(layer.size)], DigestMismatch),
        (lambda layer: [bytes(layer.size - 1)], SizeLie),
        (lambda layer: [], SizeLie),
        (endless, SizeLie),
    ],
    ids=["wrong", "short", "empty", "endless"],
)
def test_wrong_content_leaves_nothing(tmp_path, read_blob, error):
    with pytest.raises(error):
        materialise(bundles.bundle().manifest, read_blob, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_leaves_nothing(tmp_path):
    def broken(layer):
        yield b""
        raise DigestMismatch(name=layer.path, actual="?", expected="!")

    with pytest.raises(DigestMismatch):
        materialise(bundles.bundle().manifest, broken, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_code_in_a_declared_file_leaves_nothing(tmp_path):
    from skerry.bundle import oci
    from skerry.bundle.digest import digest_of

    bundle = bundles.bundle()
    evil = b"\x7fELF" + bytes(5)
    readme = bundle.config.files[0]
    data = bundle.manifest.data.replace(readme.digest.encode(), digest_of(evil).encode())
    manifest = oci.parse_manifest(data)
    with pytest.raises(ExecutableFormat):
        materialise(
            manifest, lambda layer: [evil] if layer.path == readme.path else bundle.blobs[layer.digest].chunks(),
            tmp_path / "bundle",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        unpack(bundles.bundle(), tmp_path / "file" / "bundle")


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda folder: (folder / bundles.CARD).unlink(), MissingEntry),
        (lambda folder: (folder / "extra").touch(), UndeclaredEntry),
        (lambda folder: (folder / bundles.CARD).write_bytes(b"short"), SizeLie),
        (lambda folder: (folder / bundles.CARD).write_bytes(b"# digitS\n"), DigestMismatch),
        (lambda folder: os.replace(folder / bundles.CARD, folder / "moved"), UndeclaredEntry),  # noqa: PTH105 - one line
        (lambda folder: (folder / "link").symlink_to("/etc"), UndeclaredEntry),
    ],
    ids=["gone", "extra", "short", "changed", "moved", "link"],
)
def test_a_folder_that_changed_is_noticed(folder, damage, error):
    damage(folder)
    with pytest.raises(error):
        check_folder(bundles.bundle().manifest, folder)


def test_a_file_replaced_by_a_link_is_noticed_even_if_the_content_is_right(folder):
    (folder.parent / "readme").write_bytes((folder / bundles.CARD).read_bytes())
    (folder / bundles.CARD).unlink()
    (folder / bundles.CARD).symlink_to(folder.parent / "readme")
    with pytest.raises(UndeclaredEntry):
        check_folder(bundles.bundle().manifest, folder)


def test_reading_the_config_of_no_bundle(tmp_path):
    with pytest.raises(MissingEntry):
        read_config(tmp_path)
    (tmp_path / "skerry.json").write_text("{}")
    with pytest.raises(ManifestError):
        read_config(tmp_path)
