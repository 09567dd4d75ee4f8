# SPDX-License-Identifier: Apache-2.0
"""HTTP ranges (RFC 9110, section 14) as a decision: which bytes of an immutable blob a request gets."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Answer 200 with everything."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Answer 206 with bytes `start` up to, not including, `stop`."""

    start: int
    stop: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{size}"


@dataclass(frozen=True, kw_only=True)
class Unsatisfiable:
    """Answer 416 with `Content-Range: bytes */size`."""


Decision = Whole | Part | Unsatisfiable


def choose_range(range_header: str | None, if_range: str | None, *, etag: str, size: int) -> Decision:
    """What to send of `size` bytes whose strong validator is `etag` (with its quotes).

    A header that is not understood, and several ranges in one, are ignored, as the RFC allows: the answer is whole.
    An `If-Range` that is not exactly this validator (a date, a weak tag, another tag) also gives the whole.
    """
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return Whole()
    match = _ONE_RANGE.fullmatch(range_header.strip().lower())
    if match is None:
        return Whole()
    first, last = match.groups()
    if not first:
        return _suffix(last, size)
    if last and int(last) < int(first):
        return Whole()  # not a range at all, hence ignored
    return _from(int(first), int(last) if last else size - 1, size)


def _suffix(length: str, size: int) -> Decision:
    if not length:
        return Whole()
    wanted = min(int(length), size)
    return Part(start=size - wanted, stop=size) if wanted else Unsatisfiable()


def _from(first: int, last: int, size: int) -> Decision:
    if first >= size:
        return Unsatisfiable()
    return Part(start=first, stop=min(last + 1, size))


def none_match(header: str | None, etag: str) -> bool:
    """True when `If-None-Match` does not name `etag`, so that a body must be sent (weak comparison)."""
    if header is None:
        return True
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return not ("*" in tags or etag in tags)
