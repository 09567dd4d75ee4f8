# SPDX-License-Identifier: Apache-2.0
"""What names and labels may look like, at every door through which they come in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from skerry.errors import BadRequest

MAX_LABELS = 64

_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9._@:/+-]{0,128}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def checked_name(kind: str, name: str) -> str:
    """Raises BadRequest. Names stand in paths, logs and tables, so they are plain."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            problem=f"{kind}: a name has up to 64 of A-Z a-z 0-9 . _ - and begins and ends with a letter or digit"
        )
    return name


def checked_labels(labels: Mapping[str, str | None]) -> None:
    """Raises BadRequest. `=` and `,` are left to selectors."""
    if len(labels) > MAX_LABELS:
        raise BadRequest(problem=f"labels: at most {MAX_LABELS}")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise BadRequest(problem=f"labels: {key[:80]!r} is not a usable key")
        if value is not None and not _VALUE.fullmatch(value):
            raise BadRequest(problem=f"labels: the value of {key} has up to 128 of A-Z a-z 0-9 . _ @ : / + -")


def parsed_selector(text: str) -> dict[str, str]:
    """`k=v,k2=v2` as labels. Raises BadRequest for anything else and for a key given twice."""
    selector: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.strip().partition("=")
        if not equals or key in selector:
            raise BadRequest(problem=f"selector: {part[:80]!r} is not key=value, or its key comes twice")
        selector[key] = value
    checked_labels(selector)
    return selector
