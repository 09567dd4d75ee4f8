# SPDX-License-Identifier: Apache-2.0
"""JSON columns: values in the wire's shape to text and back."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def dump(value: Any) -> str:  # noqa: ANN401 - whatever msgspec can encode
    return msgspec.json.encode(value).decode()


def load(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)


def load_labels(text: str) -> dict[str, str]:
    return load(text, dict[str, str])


def plain(text: str) -> str:
    """Text a device wrote, for a text column: PostgreSQL cannot hold NUL, and one device must not jam on that."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
