# SPDX-License-Identifier: Apache-2.0
"""Where the hub keeps blobs: immutable bytes under their own digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Protocol

from skerry.errors import BadRequest

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def checked_digest(text: str) -> str:
    """`text` when it is `sha256:<64 lower case hex>`; raises BadRequest, so nothing else ever becomes a path."""
    if not _DIGEST.fullmatch(text):
        raise BadRequest(problem="a digest looks like sha256:<64 hex digits>")
    return text


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Blobs(Protocol):
    """A blob is visible only whole and with the right digest, to every reader at once, and never changes afterwards."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes], *, limit: int) -> int:
        """Store the stream and return its size. Storing what is there already is no error.

        Raises DigestMismatch, PayloadTooLarge above `limit` bytes, StorageError. Whatever the stream raises passes
        through. In each of these cases nothing becomes visible.
        """

    async def size(self, digest: str) -> int | None:
        """Bytes of the blob, or None when it is not there."""

    def read(self, digest: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` up to, not including, `stop` (None = the end). Raises NotFound on the first step."""

    async def content(self, digest: str, *, limit: int) -> bytes:
        """The whole of a small blob. Raises NotFound, PayloadTooLarge above `limit` bytes."""
