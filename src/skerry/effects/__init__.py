# SPDX-License-Identifier: Apache-2.0
"""The seams to the world, each with as few methods as its users need.

Protocols only: importing this package must not import a real clock or socket, or every pure package breaks its contract.
The real ones are in `effects.system`, `effects.disk` and `effects.http`; fakes are in `skerry.testing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, Self


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump; decisions that matter compare it with the device's time floor."""

    def monotonic(self) -> float:
        """Seconds that never go back while the process lives."""


class Files(Protocol):
    """Every write that matters goes through here: old or new, whole, after any crash."""

    def write(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Replace `path` atomically and durably: write beside it, fsync, rename, fsync the folder.

        Raises StorageError; `path` then holds what it held before.
        """

    def read(self, path: Path) -> bytes | None:
        """Whole content, or None when there is no such file."""

    def remove(self, path: Path) -> None:
        """Remove durably; no error when it is not there."""

    def sync_tree(self, path: Path) -> None:
        """Make everything already written to the file system of `path` durable (syncfs)."""


class Spool(Protocol):
    """Files too big for memory that arrive in pieces: written aside, proven, then made visible in one step."""

    def size(self, path: Path) -> int | None:
        """Bytes of the file, or None when there is none."""

    def append(self, path: Path, data: bytes) -> None:
        """Add to the end, making the file when needed. Not durable before `publish`. Raises StorageError."""

    def pieces(self, path: Path, size: int = 1 << 20) -> Iterator[bytes]:
        """The content in order. Raises StorageError."""

    def publish(self, source: Path, target: Path) -> None:
        """Make `source` durable, then visible as `target`, replacing it atomically. Raises StorageError."""

    def clone(self, source: Path, target: Path) -> None:
        """Give an immutable file a second name, replacing what is there; a copy where links are not possible.

        Durable after `sync_tree`. Raises StorageError.
        """

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder and all in it; no error when it is not there. May be cut in the middle. Raises StorageError."""

    def names(self, folder: Path) -> tuple[str, ...]:
        """What is in a folder, sorted; empty when there is no such folder. Raises StorageError."""

    def free(self, path: Path) -> int:
        """Bytes an unprivileged process may still write to the file system that holds `path`."""


class Entropy(Protocol):
    def token(self, size: int) -> bytes:
        """`size` bytes fit for keys and identifiers."""


class Reply(Protocol):
    """A streamed HTTP answer. Close it by leaving its `with` block."""

    status: int
    headers: Mapping[str, str]  # keys in lower case

    def chunks(self, size: int = 65536) -> Iterator[bytes]:
        """The body. Raises RoadError when the connection breaks."""

    def body(self, *, limit: int) -> bytes:
        """The whole body; raises TooMuchData above `limit` bytes."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Http(Protocol):
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
        timeout: float = 30.0,
    ) -> Reply:
        """Raises HubUnreachable when no answer came, InsecureTransport for plain HTTP off this machine.

        Any HTTP status is an answer, not an error. Redirects are not followed.
        """
