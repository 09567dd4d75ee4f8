# SPDX-License-Identifier: Apache-2.0
"""Digests in OCI spelling: `sha256:` and 64 hex digits in lower case."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from skerry.errors import ManifestError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_chunks(chunks: Iterable[bytes]) -> tuple[str, int]:
    """Digest and length of a stream."""
    state = hashlib.sha256()
    size = 0
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
    return f"sha256:{state.hexdigest()}", size


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """The 64 hex digits: a blob's file name below `blobs/sha256/`. Raises ManifestError for what is no digest."""
    if not is_digest(digest):
        raise ManifestError(problem=f"{digest[:80]!r} is not a digest")
    return digest.removeprefix("sha256:")
