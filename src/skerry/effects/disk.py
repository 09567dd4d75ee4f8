# SPDX-License-Identifier: Apache-2.0
"""Durable files on a real disk: the one function through which every write that matters goes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
from pathlib import Path

from skerry.errors import StorageError

_libc = ctypes.CDLL(None, use_errno=True)


def fsync_folder(folder: Path) -> None:
    """Make renames and removals inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_beside(beside: Path, data: bytes, mode: int) -> None:
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(handle, "wb", closefd=True) as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class DiskFiles:
    def write(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_beside(beside, data, mode)
            beside.rename(path)
            fsync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise StorageError(path=str(path), problem=error.strerror or str(error)) from error

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(path=str(path), problem=error.strerror or str(error)) from error

    def remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                fsync_folder(path.parent)
        except OSError as error:
            raise StorageError(path=str(path), problem=error.strerror or str(error)) from error

    def sync_tree(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            if _libc.syncfs(handle) != 0:
                number = ctypes.get_errno()
                raise StorageError(path=str(path), problem=os.strerror(number))
        finally:
            os.close(handle)
