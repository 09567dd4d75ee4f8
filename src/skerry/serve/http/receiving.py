# SPDX-License-Identifier: Apache-2.0
"""Bytes of a client to whole requests (RFC 9112 section 2), within limits. Knows no transport."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import Final, Protocol

import httptools

from skerry.errors import RequestTooLarge
from skerry.serve.http import framing
from skerry.serve.http.message import Head, HttpRequest, HttpResponse, refusal

_END: Final = b"\r\n\r\n"
_REMEMBERED: Final = 256  # heads of requests, all connections together
_MAX_REMEMBERED: Final = 2048  # bytes of one
_NEVER_REMEMBERED: Final = frozenset({"transfer-encoding", "expect", "upgrade"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    body_bytes: int = 64 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024  # bodies of all connections together
    small_body: int = 64 * 1024  # bodies up to this are taken even then
    head_bytes: int = 32 * 1024
    headers: int = 100
    connections: int = 512
    refusals: int = 128  # connections more that are told so; each holds a file descriptor until the client has read it
    idle_seconds: float = 75.0
    request_seconds: float = 60.0  # from a request's first byte to its last
    write_seconds: float = 30.0  # without the client taking anything of its answer


class Books(Protocol):
    """What all connections of a server share."""

    limits: Limits
    held: int  # bytes of bodies received and not answered
    known: dict[bytes, Head]  # heads of requests as they were received, and what they said

    def now(self) -> float: ...


class Receiver:
    """One connection's. `waiting` are whole requests in their order; after a `fault` nothing more is taken."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._limits = books.limits
        self._parser = httptools.HttpRequestParser(self)
        self.waiting: deque[HttpRequest] = deque()
        self.fault: HttpResponse | None = None
        self.continue_due = False
        self.since: float | None = None  # when the request being received began
        self._held = 0  # this connection's share of what the server holds
        self._fed = 0
        self._begin()

    @property
    def between(self) -> bool:
        """Nothing of a request is here."""
        return self.since is None and not self.waiting

    @property
    def in_head(self) -> bool:
        return self.since is not None and not self._in_body

    def close(self) -> None:
        """Forget everything. Parser and receiver refer to each other: else both would live until the collector runs."""
        self.waiting.clear()
        self.hold(-self._held)
        self._begin()
        del self._parser

    def hold(self, size: int) -> None:
        """`size` bytes more of a body are here, or fewer."""
        self._held += size
        self._books.held += size

    def take(self, data: bytes) -> None:
        """Whatever came: parts of a request, or several."""
        if not self.between:
            self._feed(data)
        elif not self._take_known(data):
            self._feed(data)
            self._remember(data)

    def _take_known(self, data: bytes) -> bool:
        """A whole request whose head was received before, to the byte: then it says the same, and is not parsed again."""
        at = data.find(_END) + 4
        head = self._books.known.get(data[:at])
        if head is None or len(data) - at != head.length:
            return False
        self.hold(head.length)
        self.waiting.append(HttpRequest(head=head, body=data[at:], received=self._books.now()))
        return True

    def _remember(self, data: bytes) -> None:
        """`data` was fed to a parser between two requests. Was it one whole request whose body has a stated length?"""
        at = data.find(_END) + len(_END)
        known = self._books.known
        if len(self.waiting) != 1 or self.since is not None or self.fault is not None or at > _MAX_REMEMBERED:
            return
        head = self.waiting[0].head
        if head.length != len(data) - at or not _NEVER_REMEMBERED.isdisjoint(head.headers):
            return
        if len(known) >= _REMEMBERED:
            known.clear()
        known[data[:at]] = head

    def _feed(self, data: bytes) -> None:
        self._fed += len(data)
        rest = data
        while rest and self.fault is None:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._stay() + rest[upgrade.args[0] :]
            except httptools.HttpParserCallbackError:  # nothing else fails in a callback of ours
                self._stop(framing.NO_MEMORY)
            except httptools.HttpParserError as error:
                self._stop(framing.broken(error))
        if self.since is not None and self._fed > self._limits.head_bytes:
            self._stop(framing.HEAD_TOO_LARGE)

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._in_body = False
        self._body = BytesIO()
        self._body_bytes = 0

    def on_message_begin(self) -> None:
        self._begin()
        self.since = self._books.now()
        self._fed = 0  # whole reads after this one: a head may exceed its limit by one read, no more

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer
        self._header_count += 1
        self._head_bytes += len(name) + len(value)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._in_body = True
        length = self._headers.get("content-length", "")
        method, version = self._parser.get_method().decode("latin-1"), self._parser.get_http_version()
        if self._header_count > self._limits.headers or self._head_bytes > self._limits.head_bytes:
            self._stop(framing.HEAD_TOO_LARGE)
        elif (objection := framing.objection(method, version, self._headers)) is not None:
            self._stop(refusal(objection))
        elif length.isdigit() and int(length) > self._limits.body_bytes:
            self._stop(refusal(RequestTooLarge(limit=self._limits.body_bytes)))
        else:
            self.continue_due = "expect" in self._headers and version == "1.1"

    def on_body(self, body: bytes) -> None:
        if self.fault is not None:
            return
        self.continue_due = False  # the client did not wait
        self._fed = 0  # what is neither head nor body (extensions of chunks, trailers) is bounded like a head
        if self._body_bytes:
            self._body.write(body)
        else:
            self._body = BytesIO(body)  # shares the bytes: a body that comes in one piece is not copied
            self._body.seek(0, SEEK_END)
        self._body_bytes += len(body)
        self.hold(len(body))
        limits = self._limits
        if self._body_bytes > limits.body_bytes:
            self._stop(refusal(RequestTooLarge(limit=limits.body_bytes)))
        elif self._books.held > limits.held_bytes and self._body_bytes > limits.small_body:
            self._stop(framing.NO_MEMORY)

    def _has_body(self) -> bool:
        return self._headers.get("content-length", "0") != "0" or "transfer-encoding" in self._headers

    def _stay(self) -> bytes:
        """We answer an offer to upgrade in HTTP/1.1, as RFC 9110 section 7.8 allows, but the parser takes the body for
        the new protocol: then it gets the head again without the offer.
        """
        if not self._has_body():
            return b""
        headers = {name: value for name, value in self._headers.items() if name not in {"upgrade", "connection"}}
        if "close" in self._headers.get("connection", "").lower():
            headers["connection"] = "close"
        method = self._parser.get_method().decode("latin-1")
        lines = [f"{method} {self._target.decode('latin-1')} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def on_message_complete(self) -> None:
        if self.fault is not None or (self._parser.should_upgrade() and self._has_body()):
            return
        self.since = None
        self.continue_due = False
        body = self._body.getvalue()
        self._body = BytesIO()
        head = Head(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            length=len(body),
            keep_alive=self._parser.should_keep_alive(),
            old=self._parser.get_http_version() == "1.0",
        )
        self.waiting.append(HttpRequest(head=head, body=body, received=self._books.now()))

    def _stop(self, response: HttpResponse) -> None:
        """Answer what was complete before, then this, then close. Callbacks of the parser cannot raise, so they leave it."""
        if self.fault is None:
            self.fault = response
            self._body = BytesIO()
            self.hold(-self._body_bytes)
            self._body_bytes = 0
