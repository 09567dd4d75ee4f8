# SPDX-License-Identifier: Apache-2.0
"""What the transport hands to the endpoints and gets back. Knows neither sockets nor models.

What is made anew for every request is a Struct here and in the modules around: a frozen dataclass takes five times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from skerry.errors import MethodNotAllowed, Overloaded, SkerryError
from skerry.serve.status import error_body, status_of

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"


class HttpRequest(Struct, frozen=True, kw_only=True):
    """`target` as received, still percent-encoded; header names in lower case; `received` in monotonic seconds."""

    method: str
    target: str
    headers: dict[str, str] = {}
    body: bytes = b""
    received: float = 0.0


class HttpResponse(Struct, frozen=True, kw_only=True):
    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Reply = Callable[[HttpResponse], None]
"""Called once per request, on the loop's thread, now or later."""


def refusal(error: SkerryError) -> HttpResponse:
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, MethodNotAllowed):
        headers = (("Allow", str(error.fields.get("allow", ""))),)
    if isinstance(error, Overloaded):
        headers = (("Retry-After", str(error.fields["retry_after"])),)
    return HttpResponse(status=status_of(error), body=error_body(str(error)), headers=headers)
