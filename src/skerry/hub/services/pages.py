# SPDX-License-Identifier: Apache-2.0
"""Paging by key: the next page starts behind the last key of this one, so what is added meanwhile shifts nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from skerry.wire.v1.operator import Page

T = TypeVar("T")

LARGEST = 1000
DEFAULT = 100


def page_of(items: Sequence[T], *, limit: int, key: Callable[[T], str]) -> Page[T]:
    """A full page has a next one, which may turn out empty."""
    return Page(items=tuple(items), after=key(items[-1]) if items and len(items) >= limit else "")
