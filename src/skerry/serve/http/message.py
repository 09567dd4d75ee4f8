# SPDX-License-Identifier: Apache-2.0
"""What the transport hands to the endpoints and gets back. Knows neither sockets nor models.

What is made anew for every request is a Struct here and in the modules around: a frozen dataclass takes five times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol

from msgspec import Struct

from skerry.errors import MethodNotAllowed, SkerryError
from skerry.serve.status import error_body, retry_after, status_of

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"


class Head(Struct, kw_only=True):
    """Everything before a body. `target` as received, still percent-encoded; header names in lower case.

    A client sends the same bytes with every request, so a server keeps what it made of them; `prepared` is the handler's.
    """

    method: str
    target: str
    headers: dict[str, str] = {}
    length: int = 0  # of the body
    keep_alive: bool = True
    old: bool = False  # HTTP/1.0, where keeping a connection open has to be said
    prepared: object = None


class Sent(Struct, frozen=True, kw_only=True):
    """In place of an answer: it was written apart, but for the `rest` the socket did not take at once."""

    rest: bytes | memoryview = b""


class Way(Protocol):
    """A worker's own way to answer one request."""

    def send(self, response: HttpResponse | QuickResponse) -> Sent | None:
        """On the worker's thread, once. None when the answer has to go over the loop, and nothing was written."""


class Waits(Protocol):
    """What waits for a worker, and is told when nobody waits for it any more."""

    gone: bool


class HttpRequest(Struct, kw_only=True, gc=False):
    """`received` in monotonic seconds. `apart` gives a worker its own way to answer, where there is one."""

    head: Head
    body: bytes = b""
    received: float = 0.0
    apart: Callable[[Waits], Way | None] | None = None


class HttpResponse(Struct, frozen=True, kw_only=True, gc=False):
    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Switching(Struct, frozen=True, kw_only=True):
    """Instead of an answer: the connection is to speak another protocol.

    `take` is given the connection's transport and its server. It returns the protocol that has taken over and said so to the
    client, or the answer to send because it could not.
    """

    take: Callable[[Any, Any], Any]


class QuickResponse(Struct, frozen=True, kw_only=True, gc=False):
    """An answer in binary form, ready to be sent on a connection that stays open: `start` is everything up to the tensors.

    `json` is the part of it that belongs to the body.
    """

    start: bytes
    json: bytes
    tensors: list[bytes]

    def plain(self) -> HttpResponse:
        """The same for a connection on which more has to be said."""
        return HttpResponse(
            body=b"".join((self.json, *self.tensors)), content_type=BINARY, headers=in_binary(self.json)
        )


def in_binary(json: bytes) -> tuple[tuple[str, str], ...]:
    return (("Inference-Header-Content-Length", str(len(json))),)


def head_of(response: HttpResponse, *, connection: str, length: int | None = None) -> bytes:
    """Status line and fields. `connection` is the value of that field, empty to leave it out."""
    length = len(response.body) if length is None else length
    return _written(response.status, response.content_type, length, response.headers, connection)


@lru_cache(maxsize=512)
def _written(
    status: HTTPStatus, content_type: str, length: int, headers: tuple[tuple[str, str], ...], connection: str
) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if connection:
        lines.append(f"Connection: {connection}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


Reply = Callable[[HttpResponse | QuickResponse | Switching | Sent], None]
"""Called once per request, on the loop's thread, now or later."""


def refusal(error: SkerryError) -> HttpResponse:
    status = status_of(error)
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, MethodNotAllowed):
        headers = (("Allow", str(error.fields.get("allow", ""))),)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = (("Retry-After", str(retry_after(error))),)
    return HttpResponse(status=status, body=error_body(str(error), error.code), headers=headers)
