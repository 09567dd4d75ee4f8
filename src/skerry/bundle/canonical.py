# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: keys sorted, no white space, UTF-8. Same value, same bytes, same digest."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from skerry.errors import ManifestError

T = TypeVar("T")

MAX_DOCUMENT = 4 * 1024 * 1024
"""No JSON document of a bundle is larger; bytes."""


def encode(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, kind: type[T], *, document: str) -> T:
    """Raises ManifestError. A key given twice is refused: two readers could see two different documents."""
    if len(data) > MAX_DOCUMENT:
        raise ManifestError(problem=f"{document} has {len(data)} bytes, at most {MAX_DOCUMENT} are allowed")
    try:
        json.loads(data, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ManifestError(problem=f"{document}: {error}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key appears twice")
    return seen


def _no_constants(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
