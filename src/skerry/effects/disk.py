# SPDX-License-Identifier: Apache-2.0
"""Durable files on a real disk: the one function through which every write that matters goes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
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


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it that are missing, durably. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


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
            make_folder(path.parent)
            _write_beside(beside, data, mode)
            beside.rename(path)
            fsync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise _storage_error(path, error) from error

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _storage_error(path, error) from error

    def remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                fsync_folder(path.parent)
        except OSError as error:
            raise _storage_error(path, error) from error

    def sync_tree(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            if _libc.syncfs(handle) != 0:
                number = ctypes.get_errno()
                raise StorageError(path=str(path), problem=os.strerror(number))
        finally:
            os.close(handle)

    def size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _storage_error(path, error) from error

    def append(self, path: Path, data: bytes) -> None:
        try:
            make_folder(path.parent)
            with path.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise _storage_error(path, error) from error

    def pieces(self, path: Path, size: int = 1 << 20) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                while piece := file.read(size):
                    yield piece
        except OSError as error:
            raise _storage_error(path, error) from error

    def publish(self, source: Path, target: Path) -> None:
        try:
            make_folder(target.parent)
            with source.open("rb") as file:
                os.fsync(file.fileno())
            source.rename(target)
            fsync_folder(target.parent)
        except OSError as error:
            raise _storage_error(target, error) from error

    def clone(self, source: Path, target: Path) -> None:
        try:
            make_folder(target.parent)
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(source)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, target)
        except OSError as error:
            raise _storage_error(target, error) from error

    def remove_tree(self, folder: Path) -> None:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error(folder, error) from error

    def names(self, folder: Path) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 - names are wanted, not paths
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _storage_error(folder, error) from error

    def free(self, path: Path) -> int:
        try:
            figures = os.statvfs(path)
        except OSError as error:
            raise _storage_error(path, error) from error
        return figures.f_bavail * figures.f_frsize


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(path=str(path), problem=error.strerror or str(error))
