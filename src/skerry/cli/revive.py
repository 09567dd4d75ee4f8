# SPDX-License-Identifier: Apache-2.0
"""A refusal of the hub as the error it was raised as, so that hints and exit codes are the same on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from skerry.errors import HubError, SkerryError, Unauthenticated, UnexpectedReply
from skerry.wire.v1.device import ErrorBody

_UNAUTHENTICATED = 401


def refusal(url: str, status: int, raw: bytes) -> SkerryError:
    """The error behind a reply with an error status; UnexpectedReply when its body is none of ours."""
    try:
        return revive(msgspec.json.decode(raw, type=ErrorBody))
    except msgspec.DecodeError:
        if status == _UNAUTHENTICATED:
            return Unauthenticated(problem="the hub refused the token")
        return UnexpectedReply(url=url, status=status, problem=raw[:80].decode(errors="replace") or "no body")


def revive(body: ErrorBody) -> SkerryError:
    """An unknown code (a newer hub) or missing fields give a HubError that still says code and message."""
    kind = {error.code: error for error in _tree(SkerryError)}.get(body.code)
    if kind is not None:
        try:
            error = kind(**body.fields)
            error.hint()
        except (KeyError, IndexError):
            pass
        else:
            return error
    return HubError(detail=f"{body.message} ({body.code})")


def _tree(root: type[SkerryError]) -> Iterator[type[SkerryError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)
