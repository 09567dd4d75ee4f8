# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 connection (RFC 9112): bytes to requests, answers to bytes, one at a time and in order.

A connection ends by lingering (RFC 9112 section 9.6): the write side is closed and input thrown away for a moment, because
closing at once while the client still sends would reset the connection and could destroy the answer on its way.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from io import SEEK_END, BytesIO
from typing import Final, Protocol, cast

import httptools

from skerry.errors import Overloaded, RequestTooLarge
from skerry.serve.http.message import Head, HttpRequest, HttpResponse, QuickResponse, Reply, Switching, head_of, refusal
from skerry.serve.ledger import NOWHERE, Line
from skerry.serve.status import error_body

_JOIN_BELOW: Final = 64 * 1024
_LINGER_SECONDS: Final = 2.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")
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


def _plain_refusal(status: HTTPStatus, text: str) -> HttpResponse:
    return HttpResponse(status=status, body=error_body(text))


_HEAD_TOO_LARGE: Final = _plain_refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head, or what comes between its chunks, is too large"
)
_NO_MEMORY: Final = refusal(Overloaded(retry_after=1))
_NO_PROXY: Final = _plain_refusal(HTTPStatus.BAD_REQUEST, "CONNECT is for proxies, and this is none")


class Host(Protocol):
    """What a connection needs of the server it belongs to."""

    limits: Limits
    held: int  # bytes of bodies received and not answered
    known: dict[bytes, Head]  # heads of requests as they were received, and what they said

    def now(self) -> float: ...

    def handle(self, request: HttpRequest, reply: Reply) -> None: ...

    def opened(self, connection: Connection) -> bool:
        """False when there are too many already."""

    def closed(self, connection: Connection) -> None: ...

    @property
    def elsewhere(self) -> Callable[[Connection, HttpRequest], bool] | None:
        """Asked about every request, when not None: True = another process has the connection now, request and all."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """How far a connection is that another process began: bytes since it began, and a request not answered yet."""

    received: int = 0
    sent: int = 0
    settled: int = 0  # of `received`
    request: HttpRequest | None = None


_FRESH: Final = Begun()


class Connection(asyncio.Protocol):
    def __init__(self, host: Host, line: Line = NOWHERE, begun: Begun = _FRESH) -> None:
        self._host = host
        self._line = line
        self._begun = begun
        self._received = begun.received
        self._sent = begun.sent
        self._settled = begun.settled
        self._limits = host.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[HttpRequest] = deque()
        self._current: HttpRequest | None = None  # being answered
        self._pumping = False
        self._draining = False
        self._finished = False  # what still comes in is thrown away
        self._lingering = False
        self._read_paused = False
        self._write_blocked = False
        self._long = False  # the last answer may need more than one write
        self._held = 0  # this connection's share of what the host holds
        self._unsent = 0  # bytes of answers the client had not taken when its deadline was set
        self._fault: HttpResponse | None = None
        self._continue_due = False
        self._since: float | None = None  # when the request being received began
        self._fed = 0
        self._begin()
        self.deadline = self._host.now() + self._limits.idle_seconds

    # --- for the server

    @property
    def idle(self) -> bool:
        """Nothing received, nothing to answer."""
        return self._current is None and self._since is None and not self._waiting

    def drain(self) -> None:
        """From now on the last answer due closes the connection."""
        self._draining = True

    def offer(self) -> tuple[socket.socket, Begun] | None:
        """A copy of the socket, and what another process needs to go on with the request that is about to be handled.

        None when that is not possible: a part of the next request is here already, or of an answer before.
        """
        transport = self._transport
        if transport is None or self._current is None or self._waiting or self._since is not None or self._finished:
            return None
        if transport.get_write_buffer_size():
            return None
        begun = Begun(received=self._received, sent=self._sent, settled=self._settled, request=self._current)
        return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())), begun

    def handed_over(self) -> None:
        """Another process has it: nothing is read or written here any more, and the connection stays open."""
        self._finished = True
        self._line.left()
        if self._transport is not None:
            self._transport.pause_reading()
            self._transport.abort()

    def close(self) -> None:
        self._finished = True
        if self._transport is not None:
            self._transport.close()

    def expire(self) -> None:
        """`deadline` has passed."""
        if self._transport is None:
            return
        if self._lingering or self._write_blocked:
            if self._transport.get_write_buffer_size() < self._unsent:
                self._set_deadline()  # slow, but it takes what it gets
            else:
                self._transport.abort()
        elif self._since is not None:
            self._refuse(_plain_refusal(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to arrive"))
        else:
            self.close()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _send_at_once(transport.get_extra_info("socket"))
        if not self._host.opened(self):
            self._refuse(_plain_refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"))
        elif self._begun.request is not None:
            self._hold(len(self._begun.request.body))
            self._waiting.append(self._begun.request)
            self._begun = _FRESH
            self._pump()

    def connection_lost(self, _error: Exception | None) -> None:
        self._line.ended()
        self._leave()

    def _leave(self) -> None:
        self._line.left()  # no effect when it has ended
        self._transport = None
        self._finished = True
        self._current = None
        self._waiting.clear()
        self._hold(-self._held)
        self._begin()
        del (
            self._parser
        )  # it refers back to here: without this a connection would live until the garbage collector runs
        self._host.closed(self)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._finished:
            return
        if self._current is None and self._since is None and not self._waiting:  # a request begins here
            if not self._known(data):
                self._feed(data)
                self._remember(data)
        else:
            self._feed(data)
        self._pump()

    def _known(self, data: bytes) -> bool:
        """A whole request whose head was received before, to the byte: then it says the same, and is not parsed again."""
        at = data.find(_END) + len(_END)
        head = self._host.known.get(data[:at])
        if head is None or len(data) - at != head.length:
            return False
        self._hold(head.length)
        self._waiting.append(HttpRequest(head=head, body=data[at:], received=self._host.now()))
        return True

    def _remember(self, data: bytes) -> None:
        """`data` was fed to a parser between two requests. Was it one whole request whose body has a stated length?"""
        at = data.find(_END) + len(_END)
        known = self._host.known
        if len(self._waiting) != 1 or self._since is not None or self._finished or at > _MAX_REMEMBERED:
            return
        head = self._waiting[0].head
        if head.length != len(data) - at or not _NEVER_REMEMBERED.isdisjoint(head.headers):
            return
        if len(known) >= _REMEMBERED:
            known.clear()
        known[data[:at]] = head

    def eof_received(self) -> bool:
        """Keep the write side open while answers are still due."""
        self._finished = True
        return not self._lingering and (self._current is not None or bool(self._waiting))

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._set_deadline()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._set_deadline()
        self._pump()

    # --- receiving

    def _feed(self, data: bytes) -> None:
        self._fed += len(data)
        rest = data
        while rest and self._fault is None:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._stay() + rest[upgrade.args[0] :]
            except httptools.HttpParserCallbackError:  # nothing else fails in a callback of ours
                self._stop(_NO_MEMORY)
            except httptools.HttpParserError as error:
                self._stop(_plain_refusal(HTTPStatus.BAD_REQUEST, f"not a valid HTTP/1.1 request: {error}"))
        if self._since is not None and self._fed > self._limits.head_bytes:
            self._stop(_HEAD_TOO_LARGE)

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
        self._since = self._host.now()
        self._fed = 0  # whole reads after this one: a head may exceed its limit by one read, no more
        if self._current is None:
            self._set_deadline()

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
        expect = self._headers.get("expect", "").lower()
        if self._parser.get_method() == b"CONNECT":
            self._stop(_NO_PROXY)
        elif self._header_count > self._limits.headers or self._head_bytes > self._limits.head_bytes:
            self._stop(_HEAD_TOO_LARGE)
        elif length.isdigit() and int(length) > self._limits.body_bytes:
            self._stop(refusal(RequestTooLarge(limit=self._limits.body_bytes)))
        elif expect == "100-continue":
            self._continue_due = True
        elif expect:
            self._stop(_plain_refusal(HTTPStatus.EXPECTATION_FAILED, "the only expectation met is 100-continue"))

    def on_body(self, body: bytes) -> None:
        if self._fault is not None:
            return
        self._continue_due = False  # the client did not wait
        self._fed = 0  # what is neither head nor body (extensions of chunks, trailers) is bounded like a head
        if self._body_bytes:
            self._body.write(body)
        else:
            self._body = BytesIO(body)  # shares the bytes: a body that comes in one piece is not copied
            self._body.seek(0, SEEK_END)
        self._body_bytes += len(body)
        self._hold(len(body))
        limits = self._limits
        if self._body_bytes > limits.body_bytes:
            self._stop(refusal(RequestTooLarge(limit=limits.body_bytes)))
        elif self._host.held > limits.held_bytes and self._body_bytes > limits.small_body:
            self._stop(_NO_MEMORY)

    def _hold(self, size: int) -> None:
        self._held += size
        self._host.held += size

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
        if self._fault is not None or (self._parser.should_upgrade() and self._has_body()):
            return
        self._since = None
        self._continue_due = False
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
        self._waiting.append(HttpRequest(head=head, body=body, received=self._host.now()))

    def _stop(self, response: HttpResponse) -> None:
        """Answer what was complete before, then this, then close. Callbacks of the parser cannot raise, so they leave it."""
        if self._fault is None:
            self._fault = response
            self._finished = True
            self._body = BytesIO()
            self._hold(-self._body_bytes)
            self._body_bytes = 0

    # --- answering

    def _pump(self) -> None:
        """Answer what is complete, one at a time; an answer may come at once or later."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._waiting and self._current is None and not self._write_blocked:
                request = self._current = self._waiting.popleft()
                self.deadline = _NEVER
                elsewhere = self._host.elsewhere
                if elsewhere is not None and elsewhere(self, request):
                    break
                self._host.handle(request, partial(self._answer, request))
        finally:
            self._pumping = False
        self._settle()

    def _answer(self, request: HttpRequest, response: HttpResponse | QuickResponse | Switching) -> None:
        if request is not self._current:
            return  # the client has gone
        self._current = None
        self._hold(-len(request.body))
        if isinstance(response, Switching):
            refused = self._switched(response)
            if refused is None:
                return
            response = refused
        more = bool(self._waiting) or self._fault is not None or (self._since is not None and not self._finished)
        last = not request.head.keep_alive or ((self._draining or self._finished) and not more)
        self._settled = 0 if more else self._received
        self._write(response, head_only=request.head.method == "HEAD", last=last, old=request.head.old)
        if last:
            self._linger()
        else:
            self._set_deadline()
            if not self._long or (self._transport is not None and not self._transport.get_write_buffer_size()):
                self._line.kept(self._sent)
        self._pump()

    def _switched(self, switching: Switching) -> HttpResponse | None:
        """Hand the connection over. Whatever else came in would belong to neither protocol, so there must be nothing."""
        transport = self._transport
        if transport is None or self._waiting or self._since is not None or self._finished or self._draining:
            return refusal(Overloaded(retry_after=1))
        taken = switching.take(transport, self._host)
        if isinstance(taken, HttpResponse):
            return taken
        self._leave()
        transport.set_protocol(taken)
        taken.connection_made(transport)
        return None

    def _settle(self) -> None:
        transport = self._transport
        if transport is None or self._lingering:
            return
        if self._current is None and not self._waiting:
            if self._fault is not None:
                self._refuse(self._fault)
                return
            if self._continue_due:
                self._continue_due = False
                self._note(len(_CONTINUE))
                transport.write(_CONTINUE)
                self._line.kept(self._sent)
        self._throttle(transport)

    def _throttle(self, transport: asyncio.Transport) -> None:
        """Read no further while a second request is already waiting: a pipeline is bounded by one read."""
        if self._waiting and not self._read_paused:
            self._read_paused = True
            transport.pause_reading()
        elif not self._waiting and self._read_paused:
            self._read_paused = False
            transport.resume_reading()

    def _refuse(self, response: HttpResponse) -> None:
        self._write(response, head_only=False, last=True, old=False)
        self._linger()

    def _write(self, response: HttpResponse | QuickResponse, *, head_only: bool, last: bool, old: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        if isinstance(response, QuickResponse):
            if not (last or old or head_only):
                data = b"".join((response.start, *response.tensors))
                self._note(len(data))
                transport.write(data)
                return
            response = response.plain()
        head = head_of(response, connection="close" if last else "keep-alive" if old else "")
        self._note(len(head) if head_only else len(head) + len(response.body))
        if head_only:
            transport.write(head)
        elif len(response.body) < _JOIN_BELOW:
            transport.write(head + response.body)
        else:
            transport.writelines((head, response.body))

    def _note(self, size: int) -> None:
        """Before that many bytes are written."""
        self._sent += size
        self._long = size >= _JOIN_BELOW
        self._line.promise(self._sent, self._settled, long=self._long)

    # --- ending

    def _linger(self) -> None:
        self._finished = self._lingering = True
        self._waiting.clear()
        transport = self._transport
        if transport is None:
            return
        if self._read_paused:
            self._read_paused = False
            transport.resume_reading()
        transport.write_eof()
        self._set_deadline()

    def _set_deadline(self) -> None:
        limits = self._limits
        if self._lingering or self._write_blocked:
            self._unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
            self.deadline = self._host.now() + (limits.write_seconds if self._unsent else _LINGER_SECONDS)
        elif self._current is not None:
            self.deadline = _NEVER
        elif self._since is not None:
            self.deadline = self._since + limits.request_seconds
        else:
            self.deadline = self._host.now() + limits.idle_seconds


def _send_at_once(connected: socket.socket | None) -> None:
    """Without this an answer can wait 40 ms for an acknowledgement. asyncio itself does it only where proto is not 0."""
    if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
