# SPDX-License-Identifier: Apache-2.0
"""Which paths a file of a bundle may have.

An allow-list, so that a path means the same file on every file system a bundle may pass: ASCII letters, digits and
` ._+@=,~-`, no segment that begins with a dot or ends with a dot or space, `/` between segments, relative.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from skerry.errors import ArchiveRefused, BadEntryName, DuplicateEntry, PathEscape

MAX_PATH = 200
MAX_DEPTH = 8

_SEGMENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9 ._+@=,~-]*[A-Za-z0-9_+@=,~-])?")
_DRIVE = re.compile(r"[A-Za-z]:")
_FIRST_PRINTABLE = 0x20
_DELETE = 0x7F


class Flaw(StrEnum):
    ESCAPE = "escape"
    NAME = "name"


@dataclass(frozen=True, kw_only=True)
class PathFlaw:
    flaw: Flaw
    problem: str


def flaw_of(path: str) -> PathFlaw | None:
    """What is wrong with `path`, or None."""
    if any(ord(letter) < _FIRST_PRINTABLE or ord(letter) == _DELETE for letter in path):
        return PathFlaw(flaw=Flaw.NAME, problem="control characters")
    if "\\" in path:
        return PathFlaw(flaw=Flaw.NAME, problem="backslash")
    if path.startswith("/") or _DRIVE.match(path):
        return PathFlaw(flaw=Flaw.ESCAPE, problem="absolute")
    segments = path.split("/")
    if ".." in segments:
        return PathFlaw(flaw=Flaw.ESCAPE, problem="climbs with ..")
    return _form_flaw(path, segments)


def _form_flaw(path: str, segments: list[str]) -> PathFlaw | None:
    if len(path) > MAX_PATH or len(segments) > MAX_DEPTH:
        return PathFlaw(flaw=Flaw.NAME, problem=f"longer than {MAX_PATH} characters or deeper than {MAX_DEPTH} folders")
    odd = next((segment for segment in segments if not _SEGMENT.fullmatch(segment)), None)
    if odd is not None:
        return PathFlaw(flaw=Flaw.NAME, problem=f"{odd!r} is not made of ASCII letters, digits and ' ._+@=,~-'")
    return None


def refusal_of(path: str) -> ArchiveRefused | None:
    """The error that names what is wrong with `path`, or None. Names are shown with escapes, never raw."""
    flaw = flaw_of(path)
    if flaw is None:
        return None
    if flaw.flaw is Flaw.ESCAPE:
        return PathEscape(entry=ascii(path))
    return BadEntryName(entry=ascii(path), problem=flaw.problem)


def require_paths(paths: Iterable[str]) -> None:
    """Raises BadEntryName, PathEscape or DuplicateEntry unless the paths can live together in one folder.

    Two paths that differ only in case, or where one is a folder of the other, count as duplicates: which of them a device
    would read depends on its file system.
    """
    seen: dict[str, str] = {}
    for path in paths:
        refusal = refusal_of(path)
        if refusal is not None:
            raise refusal
        if path.lower() in seen:
            raise DuplicateEntry(entry=path)
        seen[path.lower()] = path
    for folded, path in seen.items():
        if any(parent in seen for parent in _parents(folded)):
            raise DuplicateEntry(entry=path)


def _parents(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:count]) for count in range(1, len(segments))]
