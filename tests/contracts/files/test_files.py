# SPDX-License-Identifier: Apache-2.0
"""Files and Spool: what every implementation keeps, on a real disk and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.effects.disk import DiskFiles
from skerry.errors import StorageError
from skerry.testing.files import MemoryFiles


@pytest.fixture(params=["disk", "memory"])
def world(request, tmp_path):
    if request.param == "disk":
        return DiskFiles(), tmp_path
    return MemoryFiles(), Path("/root")


def test_write_replaces_whole_and_makes_folders(world):
    files, root = world
    files.write(root / "a/b", b"one")
    files.write(root / "a/b", b"two")
    assert files.read(root / "a/b") == b"two"
    assert files.names(root / "a") == ("b",)


def test_missing_is_none_and_removing_it_no_error(world):
    files, root = world
    assert files.read(root / "x") is None
    assert files.size(root / "x") is None
    files.remove(root / "x")
    files.remove_tree(root / "x")
    assert files.names(root / "x") == ()


def test_append_grows_and_publish_moves(world):
    files, root = world
    files.append(root / "part", b"ab")
    files.append(root / "part", b"cd")
    assert files.size(root / "part") == 4
    files.write(root / "whole", b"old")
    files.publish(root / "part", root / "whole")
    assert files.read(root / "whole") == b"abcd"
    assert files.read(root / "part") is None


def test_pieces_are_the_content_in_order(world):
    files, root = world
    files.write(root / "f", b"abcdefg")
    assert list(files.pieces(root / "f", 3)) == [b"abc", b"def", b"g"]


def test_clone_gives_a_second_name_and_replaces(world):
    files, root = world
    files.write(root / "blob", b"new")
    files.write(root / "d/name", b"old")
    files.clone(root / "blob", root / "d/name")
    files.remove(root / "blob")
    assert files.read(root / "d/name") == b"new"


def test_remove_tree_takes_everything_below(world):
    files, root = world
    files.write(root / "d/e/f", b"1")
    files.write(root / "d/g", b"2")
    files.remove_tree(root / "d")
    assert files.read(root / "d/e/f") is None
    assert files.names(root / "d") == ()


def test_what_is_not_there_cannot_be_moved_read_or_named_twice(world):
    files, root = world
    files.write(root / "there", b"")
    for act in (
        lambda: files.publish(root / "x", root / "y"),
        lambda: list(files.pieces(root / "x")),
        lambda: files.clone(root / "x", root / "y"),
    ):
        with pytest.raises(StorageError):
            act()


def test_sync_and_free_answer(world):
    files, root = world
    files.write(root / "f", b"1")
    files.sync_tree(root)
    assert files.free(root) > 0


def test_disk_wraps_what_the_system_says(tmp_path):
    files = DiskFiles()
    files.write(tmp_path / "file", b"")
    below = tmp_path / "file" / "below"
    for act in (
        lambda: files.write(below, b""),
        lambda: files.append(below, b""),
        lambda: files.read(tmp_path),
        lambda: files.size(below),
        lambda: files.names(tmp_path / "file"),
        lambda: files.clone(tmp_path, tmp_path / "x"),
        lambda: files.free(tmp_path / "nowhere"),
        lambda: files.remove(tmp_path),
        lambda: files.remove_tree(tmp_path / "file"),
    ):
        with pytest.raises(StorageError):
            act()


def test_disk_copies_where_it_cannot_link(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    files = DiskFiles()
    files.write(tmp_path / "a", b"data")
    files.clone(tmp_path / "a", tmp_path / "b")
    assert files.read(tmp_path / "b") == b"data"


def test_memory_loses_what_was_not_made_durable():
    files = MemoryFiles()
    files.append(Path("/f"), b"tail")
    files.append(Path("/d/g"), b"kept")
    files.sync_tree(Path("/d"))
    files.power_on()
    assert files.read(Path("/f")) is None
    assert files.read(Path("/d/g")) == b"kept"


def test_memory_runs_full():
    files = MemoryFiles()
    files.fill(free=3)
    with pytest.raises(StorageError, match="No space"):
        files.write(Path("/f"), b"four")
    files.write(Path("/f"), b"3in")
    with pytest.raises(StorageError, match="No space"):
        files.append(Path("/g"), b"x")
