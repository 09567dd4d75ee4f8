# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 connection (RFC 9112): bytes to requests, answers to bytes, one at a time and in order.

A connection ends by lingering (RFC 9112 section 9.6): the write side is closed and input thrown away for a moment, because
closing at once while the client still sends would reset the connection and could destroy the answer on its way.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, cast

from skerry.serve.http import framing
from skerry.serve.http.apart import Apart
from skerry.serve.http.message import (
    HttpRequest,
    HttpResponse,
    QuickResponse,
    Reply,
    Sent,
    Switching,
    Waits,
    head_of,
)
from skerry.serve.http.receiving import Books, Receiver
from skerry.serve.ledger import NOWHERE, Line

_JOIN_BELOW: Final = 64 * 1024
_LINGER_SECONDS: Final = 2.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")
_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # how it begins, and no request of HTTP/1.1 (RFC 9113 section 3.4)


class Host(Books, Protocol):
    """What a connection needs of the server it belongs to."""

    def handle(self, request: HttpRequest, reply: Reply) -> None: ...

    def opened(self, connection: Connection) -> bool:
        """False when there are too many already."""

    def closed(self, connection: Connection) -> None: ...

    @property
    def elsewhere(self) -> Callable[[Connection, HttpRequest], bool] | None:
        """Asked about every request, when not None: True = another process has the connection now, request and all."""

    @property
    def http2(self) -> Callable[[asyncio.Transport, Any, bytes], None] | None:
        """Takes over, with this server, a connection that begins as HTTP/2."""


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
        self._receiver = Receiver(host)
        self._waiting = self._receiver.waiting
        self._current: HttpRequest | None = None  # being answered
        self._asked: Waits | None = None  # by a worker
        self._pumping = False
        self._draining = False
        self._finished = False  # what still comes in is thrown away
        self._lingering = False
        self._read_paused = False
        self._write_blocked = False
        self._copy: socket.socket | None = None  # a descriptor for workers
        self._copy_used = False
        self._long = False  # the last answer may need more than one write
        self._unsent = 0  # bytes of answers the client had not taken when its deadline was set
        self._opening: bytes | None = None if host.http2 is None or begun.received else b""  # of what may be HTTP/2
        self.deadline = self._host.now() + self._limits.idle_seconds

    # --- for the server

    @property
    def idle(self) -> bool:
        """Nothing received, nothing to answer."""
        return self._current is None and self._receiver.since is None and not self._waiting

    @property
    def stalled(self) -> bool:
        """Nothing but the beginning of a head is here."""
        return self._current is None and not self._waiting and self._receiver.in_head

    @property
    def leaving(self) -> bool:
        """The last answer has been written."""
        return self._lingering

    def drain(self) -> None:
        """From now on the last answer due closes the connection."""
        self._draining = True

    def offer(self) -> tuple[socket.socket, Begun] | None:
        """A copy of the socket, and what another process needs to go on with the request that is about to be handled.

        None when that is not possible: a part of the next request is here already, or of an answer before.
        """
        transport = self._transport
        if (
            transport is None
            or self._current is None
            or self._waiting
            or self._receiver.since is not None
            or self._finished
        ):
            return None
        if transport.get_write_buffer_size():
            return None
        begun = Begun(received=self._received, sent=self._sent, settled=self._settled, request=self._current)
        self._line.leaving()
        return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())), begun

    def stays(self) -> None:
        """Nobody took what was offered."""
        self._line.promise(self._sent, self._settled, long=False)

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
        elif self._receiver.since is not None:
            self._refuse(framing.TOO_SLOW)
        else:
            self.close()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _send_at_once(transport.get_extra_info("socket"))
        if not self._host.opened(self):
            self._refuse(framing.TOO_MANY)
        elif self._begun.request is not None:
            self._receiver.hold(len(self._begun.request.body))
            self._waiting.append(self._begun.request)
            self._begun = _FRESH
            self._pump()

    def connection_lost(self, _error: Exception | None) -> None:
        self._line.ended()
        self._leave()

    def _leave(self) -> None:
        self._line.left()  # no effect when it has ended
        self._transport = None
        self._let_go()
        if self._asked is not None:
            self._asked.gone = True
            self._asked = None
        self._finished = True
        self._current = None
        self._receiver.close()
        self._host.closed(self)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._finished:
            return
        if self._opening is not None:
            data = self._opening + data
            if self._is_http2(data):
                return
        receiver = self._receiver
        receiver.take(data)
        if receiver.fault is not None:
            self._finished = True
        elif self._current is None and receiver.since is not None:
            self._set_deadline()
        self._pump()

    def _is_http2(self, data: bytes) -> bool:
        """Or may become it: then the rest is waited for."""
        self._opening = None
        take, transport = self._host.http2, self._transport
        if take is None or transport is None or data[: len(_HTTP2)] != _HTTP2[: len(data)]:
            return False
        if len(data) < len(_HTTP2):
            self._opening = data
            return True
        self._leave()
        take(transport, self._host, data)
        return True

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
                request.apart = self.apart
                self._host.handle(request, partial(self._answer, request))
        finally:
            self._pumping = False
        self._settle()

    def apart(self, asked: Waits) -> Apart | None:
        """A worker's own way to write the answer to the request that is being answered; None when it must not.

        `asked` is told when the connection is lost; while a client may only have closed its own side, it is answered.
        """
        request, transport = self._current, self._transport
        if request is None:
            asked.gone = True
            return None
        self._asked = asked
        if transport is None or transport.get_write_buffer_size():
            return None
        ordinary = request.head.keep_alive and not request.head.old and request.head.method != "HEAD"
        if not ordinary or not self.undisturbed:
            return None
        self._copy = self._copy or _copy_of(transport.get_extra_info("socket"))
        if self._copy is None:
            return None
        self._copy_used = True
        return Apart(self, self._copy, self._received)

    @property
    def undisturbed(self) -> bool:
        """One request is being answered, and neither is there another nor must more be said with the answer."""
        return (
            self._current is not None
            and self._receiver.between
            and not (self._draining or self._finished or self._write_blocked)
        )

    def promise(self, size: int, received: int) -> None:
        self._settled = received
        self._note(size)

    def _let_go(self) -> None:
        """Close the copy once no worker can be using it: its number would become another connection's."""
        if self._copy is not None and self._transport is None and not self._copy_used:
            self._copy.close()
            self._copy = None

    def _answer(self, request: HttpRequest, response: HttpResponse | QuickResponse | Switching | Sent) -> None:
        self._copy_used = False
        if request is not self._current:
            self._let_go()
            return  # the client has gone
        self._current = self._asked = None
        self._receiver.hold(-len(request.body))
        if isinstance(response, Switching):
            refused = self._switched(response)
            if refused is None:
                return
            response = refused
        more = (
            bool(self._waiting)
            or self._receiver.fault is not None
            or (self._receiver.since is not None and not self._finished)
        )
        if isinstance(response, Sent):
            last = self._finished and not more
            if response.rest and self._transport is not None:
                self._transport.write(response.rest)
        else:
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
        if transport is None or self._waiting or self._receiver.since is not None or self._finished or self._draining:
            return framing.NO_MEMORY
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
            if self._receiver.fault is not None:
                self._refuse(self._receiver.fault)
                return
            if self._receiver.continue_due:
                self._receiver.continue_due = False
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
        end_writing(transport)
        self._set_deadline()

    def _set_deadline(self) -> None:
        limits = self._limits
        if self._lingering or self._write_blocked:
            self._unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
            self.deadline = self._host.now() + (limits.write_seconds if self._unsent else _LINGER_SECONDS)
        elif self._current is not None:
            self.deadline = _NEVER
        elif self._receiver.since is not None:
            self.deadline = self._receiver.since + limits.request_seconds
        else:
            self.deadline = self._host.now() + limits.idle_seconds


def end_writing(transport: asyncio.Transport) -> None:
    """Of a client that has gone the sockets of asyncio do not say it, but fail: then there is nothing to linger for."""
    try:
        transport.write_eof()
    except OSError:
        transport.abort()


def _send_at_once(connected: socket.socket | None) -> None:
    """Without this an answer can wait 40 ms for an acknowledgement. asyncio itself does it only where proto is not 0."""
    if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _copy_of(connected: socket.socket | None) -> socket.socket | None:
    """A second descriptor; None where there is no socket or descriptors have run out."""
    if connected is None:
        return None
    try:
        copy = socket.socket(fileno=os.dup(connected.fileno()))
    except OSError:
        return None
    copy.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return copy
