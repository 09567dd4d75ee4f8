# SPDX-License-Identifier: Apache-2.0
"""Blobs as files in one folder: `sha256/<two hex>/<hex>`, uploads in `incoming/` until they are proven."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from skerry.effects.disk import fsync_folder
from skerry.errors import DigestMismatch, NotFound, PayloadTooLarge, StorageError
from skerry.hub.blobs import checked_digest

T = TypeVar("T")

_CHUNK = 256 * 1024
_BATCH = 1024 * 1024  # bytes gathered before one trip to a worker thread


class LocalBlobs:
    """File work runs in worker threads, so a slow disk never holds up the hub's polls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"

    def prepare(self, *, now: float, abandoned_after: float = 86_400.0) -> int:
        """Make the folders and remove uploads nobody finished for `abandoned_after` seconds; returns how many.

        Younger ones may belong to another hub process on the same folder.
        """
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            stale = [path for path in self._incoming.iterdir() if path.stat().st_mtime < now - abandoned_after]
            for path in stale:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _storage(self._incoming, error) from error
        return len(stale)

    async def put(self, digest: str, chunks: AsyncIterator[bytes], *, limit: int) -> int:
        beside = self._incoming / f"{checked_digest(digest).partition(':')[2][:16]}.{secrets.token_hex(8)}"
        try:
            size = await self._receive(beside, digest, chunks, limit)
            await _on_disk(self._path(digest), partial(_publish, beside, self._path(digest)))
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
        return size

    async def _receive(self, beside: Path, digest: str, chunks: AsyncIterator[bytes], limit: int) -> int:
        hasher = hashlib.sha256()
        size = 0
        with await _on_disk(beside, partial(_create, beside)) as file:
            async for batch in _batches(chunks):
                size += len(batch)
                if size > limit:
                    raise PayloadTooLarge(limit=limit)
                await _on_disk(beside, partial(_append, file, hasher, batch))
            actual = f"sha256:{hasher.hexdigest()}"
            if actual != digest:
                raise DigestMismatch(name="blob", actual=actual, expected=digest)
            await _on_disk(beside, partial(_settle, file))
        return size

    async def size(self, digest: str) -> int | None:
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _storage(self._path(digest), error) from error

    async def read(self, digest: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        try:
            with await asyncio.to_thread(self._path(digest).open, "rb") as file:
                position, end = start, stop if stop is not None else os.fstat(file.fileno()).st_size
                while position < end:
                    chunk = await asyncio.to_thread(os.pread, file.fileno(), min(_CHUNK, end - position), position)
                    if not chunk:
                        return
                    position += len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise NotFound(kind="blob", name=digest) from error
        except OSError as error:
            raise _storage(self._path(digest), error) from error

    async def content(self, digest: str, *, limit: int) -> bytes:
        size = await self.size(digest)
        if size is not None and size > limit:
            raise PayloadTooLarge(limit=limit)
        return b"".join([chunk async for chunk in self.read(digest)])

    def _path(self, digest: str) -> Path:
        algorithm, _, value = checked_digest(digest).partition(":")
        return self._folder / algorithm / value[:2] / value


async def _on_disk(path: Path, work: Callable[[], T]) -> T:
    """Only errors of the disk become StorageError: an upload may break with an OSError of its own."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise _storage(path, error) from error


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _BATCH:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _create(path: Path) -> FileIO:
    """Unbuffered: after a failed write there is nothing left that closing would try to write again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb", buffering=0)


def _append(file: FileIO, hasher: hashlib._Hash, batch: bytes) -> None:
    hasher.update(batch)
    rest = memoryview(batch)
    while rest:
        rest = rest[file.write(rest) :]


def _settle(file: FileIO) -> None:
    os.fsync(file.fileno())


def _publish(beside: Path, path: Path) -> None:
    """Rename into place. Two uploads of one digest both end here; the later replaces equal bytes by equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(path)
    fsync_folder(path.parent)
    fsync_folder(path.parent.parent)


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError(path=str(path), problem=error.strerror or str(error))
