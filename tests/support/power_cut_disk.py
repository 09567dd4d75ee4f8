# SPDX-License-Identifier: Apache-2.0
"""What a real disk may hold after a power cut, at every line of skerry.effects.disk.

POSIX promises little: content that was not fsynced may be old, new, empty, or zeros; a name made or removed in a folder that
was not fsynced since may be there or not. `Observer` watches a folder while `DiskFiles` works in it: it learns from fsync and
syncfs what is durable, looks at the folder before every line, and says what a path may hold if the power went now.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from skerry.effects import disk

Content = bytes | None
"""None = there is no such file."""


class Observer:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._entries: dict[int, dict[str, int]] = {}  # inode of a folder -> what its durable version names
        self._contents: dict[int, bytes] = {}  # inode of a file -> its durable content
        self._known: set[int] = set()
        self._sync_all()
        fsync, libc = os.fsync, disk._libc

        def watched_fsync(handle: int) -> None:
            fsync(handle)
            self._synced(Path(f"/proc/self/fd/{handle}").readlink())

        class WatchedLibc:
            @staticmethod
            def syncfs(handle: int) -> int:
                outcome = int(libc.syncfs(handle))
                self._sync_all()
                return outcome

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(disk, "_libc", WatchedLibc)

    @contextmanager
    def watching(self, look: Callable[[], None]) -> Iterator[None]:
        """`look` before every line of the disk's module that runs in the block."""

        def on_line(frame: FrameType, event: str, argument: Any) -> Any:
            del argument
            if event in {"line", "return"}:
                self._notice_new()
                look()
            return on_line

        def on_call(frame: FrameType, event: str, argument: Any) -> Any:
            return on_line if frame.f_code.co_filename == disk.__file__ else None

        before = sys.gettrace()
        sys.settrace(on_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def possible(self, path: Path) -> set[Content]:
        """Everything `path` may hold after a power cut now."""
        found: set[Content] = set()
        for inode in self._inodes(path):
            found |= {None} if inode is None else self._possible_contents(inode)
        return found

    # --- inside ---

    def _inodes(self, path: Path) -> set[int | None]:
        """What the path may lead to, through every folder above it."""
        folders: set[int | None] = {self._root.stat().st_ino}
        walked = self._root
        for name in path.relative_to(self._root).parts:
            folders = {each for folder in folders for each in self._named(folder, walked, name)}
            walked = walked / name
        return folders

    def _named(self, folder: int | None, where: Path, name: str) -> set[int | None]:
        if folder is None:
            return {None}
        durable = self._entries.get(folder, {}).get(name)
        now = where / name
        current = now.lstat().st_ino if where.is_dir() and where.stat().st_ino == folder and now.exists() else None
        return {durable, current}

    def _possible_contents(self, inode: int) -> set[Content]:
        durable = self._contents.get(inode)
        current = next((path.read_bytes() for path in self._files() if path.stat().st_ino == inode), durable)
        if current == durable or current is None:
            return {durable}
        return {durable or b"", current, bytes(len(current)), current[: len(current) // 2]}

    def _files(self) -> Iterator[Path]:
        return (path for path in self._root.rglob("*") if path.is_file())

    def _notice_new(self) -> None:
        """The number of a file that is gone may be used again: nothing of a new file is durable."""
        now = {path.lstat().st_ino for path in self._root.rglob("*")}
        for inode in now - self._known:
            self._contents.pop(inode, None)
            self._entries.pop(inode, None)
        self._known = now

    def _synced(self, path: Path) -> None:
        self._notice_new()
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            self._entries[found.st_ino] = {each.name: each.lstat().st_ino for each in path.iterdir()}
        else:
            self._contents[found.st_ino] = path.read_bytes()

    def _sync_all(self) -> None:
        for path in (self._root, *self._root.rglob("*")):
            self._synced(path)
