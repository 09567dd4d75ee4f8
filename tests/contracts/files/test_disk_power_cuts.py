# SPDX-License-Identifier: Apache-2.0
"""DiskFiles keeps what Files and Spool promise if the power goes between any two of its lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.effects.disk import DiskFiles
from support.power_cut_disk import Content, Observer

OLD, NEW = b"old content", b"and quite new content"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_bytes(OLD)
    return tmp_path


def watched(root: Path, monkeypatch, path: Path, act) -> tuple[set[Content], set[Content]]:
    """What `path` may hold if the power goes while `act` is at work; and after it returned."""
    observer = Observer(root, monkeypatch)
    during: set[Content] = set()
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        during.update(observer.possible(path))

    with observer.watching(look):
        act()
    assert looks > 3
    return during, observer.possible(path)


def test_write_is_old_or_new_and_new_once_it_returned(root, monkeypatch):
    path = root / "there/file"
    during, after = watched(root, monkeypatch, path, lambda: DiskFiles().write(path, NEW))
    assert during == {OLD, NEW}
    assert after == {NEW}


def test_write_into_folders_that_are_not_there_yet(root, monkeypatch):
    path = root / "a/b/c/file"
    during, after = watched(root, monkeypatch, path, lambda: DiskFiles().write(path, NEW))
    assert during == {None, NEW}
    assert after == {NEW}


def test_remove_is_there_or_gone_and_gone_once_it_returned(root, monkeypatch):
    path = root / "there/file"
    during, after = watched(root, monkeypatch, path, lambda: DiskFiles().remove(path))
    assert during == {OLD, None}
    assert after == {None}


@pytest.mark.parametrize("target", ["there/file", "new/folder/file"])
def test_publish_is_old_or_new_and_new_once_it_returned(root, monkeypatch, target):
    files, source, path = DiskFiles(), root / "partial/part", root / target
    before = OLD if path.exists() else None

    def act() -> None:
        files.append(source, NEW[:7])
        files.append(source, NEW[7:])
        files.publish(source, path)

    during, after = watched(root, monkeypatch, path, act)
    assert during == {before, NEW}
    assert after == {NEW}


def test_clone_is_durable_after_sync_tree(root, monkeypatch):
    files, path = DiskFiles(), root / "bundle/models/file"

    def act() -> None:
        files.clone(root / "there/file", path)
        files.sync_tree(root)

    during, after = watched(root, monkeypatch, path, act)
    assert during == {None, OLD}
    assert after == {OLD}


def test_append_is_durable_after_sync_tree(root, monkeypatch):
    files, path = DiskFiles(), root / "there/tail"

    def act() -> None:
        files.append(path, NEW)
        files.sync_tree(root)

    during, after = watched(root, monkeypatch, path, act)
    assert {None, b"", NEW} <= during
    assert after == {NEW}


def test_the_observer_itself_sees_what_is_not_durable(root, monkeypatch):
    observer = Observer(root, monkeypatch)
    (root / "there/file").write_bytes(NEW)
    (root / "there/other").write_bytes(NEW)
    assert observer.possible(root / "there/file") >= {OLD, NEW, bytes(len(NEW))}
    assert observer.possible(root / "there/other") >= {None, b"", NEW}
