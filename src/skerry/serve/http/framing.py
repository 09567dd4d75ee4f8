# SPDX-License-Identifier: Apache-2.0
"""What is refused before a request has an address: messages whose framing or head two readers could take differently. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from skerry.errors import (
    CodingUnsupported,
    ExpectationUnmet,
    HeadTooLarge,
    MessageInvalid,
    Overloaded,
    SkerryError,
    TooManyConnections,
    TooSlow,
    VersionUnsupported,
)
from skerry.serve.http.message import HttpResponse, refusal

_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")
"""RFC 3986 section 3.2 without user information and commas: fields that come twice are joined by one."""

HEAD_TOO_LARGE: Final = refusal(HeadTooLarge())
NO_MEMORY: Final = refusal(Overloaded(retry_after=1))
TOO_MANY: Final = refusal(TooManyConnections())
TOO_SLOW: Final = refusal(TooSlow())


def broken(problem: object) -> HttpResponse:
    return refusal(MessageInvalid(problem=problem))


def objection(method: str, version: str, headers: Mapping[str, str]) -> SkerryError | None:
    """`headers` by lower-case names, those that came twice joined by ", ". What the parser has let pass and RFC 9112 does not."""
    return next(_objections(method, version, headers), None)


def _objections(method: str, version: str, headers: Mapping[str, str]) -> Iterator[SkerryError]:
    if version == "0.9":
        yield MessageInvalid(problem="HTTP/0.9 has no fields")
    if version not in {"1.0", "1.1"}:
        yield VersionUnsupported(version=version)
    if method == "CONNECT":
        yield MessageInvalid(problem="CONNECT is for proxies, and this is none")
    host = headers.get("host", "" if version == "1.0" else None)
    if host is None:
        yield MessageInvalid(problem="the field Host is missing")
    elif not _AUTHORITY.fullmatch(host):
        yield MessageInvalid(problem="the field Host must be one host")
    coding = headers.get("transfer-encoding", "").lower()
    if coding and version == "1.0":
        yield MessageInvalid(problem="HTTP/1.0 has no transfer codings")
    if coding not in {"", "chunked"}:
        yield CodingUnsupported()
    if headers.get("expect", "100-continue").lower() != "100-continue":
        yield ExpectationUnmet()
