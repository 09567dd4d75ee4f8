# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a blob are: in memory, in a file, or inside an archive. Big ones are never wholly in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

CHUNK = 1024 * 1024


class Blob(Protocol):
    @property
    def size(self) -> int: ...

    def chunks(self) -> Iterator[bytes]:
        """The content from the start, in pieces of at most CHUNK bytes. Fewer bytes than `size` if the source was cut."""


@dataclass(frozen=True)
class MemoryBlob:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), CHUNK):
            yield self.data[start : start + CHUNK]


@dataclass(frozen=True)
class FileBlob:
    """`size` bytes of a file from `offset` on; opened anew for each reading."""

    path: Path
    offset: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from read_span(file, self.offset, self.size)


@dataclass(frozen=True)
class StreamBlob:
    """`size` bytes of an open, seekable stream, which must stay open. Not for two readers at once."""

    stream: BinaryIO
    offset: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        yield from read_span(self.stream, self.offset, self.size)


def read_span(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    file.seek(offset)
    left = size
    while left:
        chunk = file.read(min(left, CHUNK))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


def content(blob: Blob) -> bytes:
    """The whole of it; only for documents and samples, whose size the caller has limited."""
    return b"".join(blob.chunks())


def head(blob: Blob, size: int) -> bytes:
    """The first `size` bytes, at most CHUNK."""
    return next(iter(blob.chunks()), b"")[:size]
