# SPDX-License-Identifier: Apache-2.0
"""One blocking connection: a message out, an answer in, within a time.

The kernel watches the time (SO_RCVTIMEO, SO_SNDTIMEO): Python's own timeouts cost a poll() before every call.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
from time import monotonic
from typing import Final

from skerry.client.address import Address, Scheme
from skerry.client.answer import HEAD_END, MAX_HEAD, Answers, Head, room
from skerry.client.request import Message
from skerry.errors import CallTimedOut, ConnectionBroken, ServerUnreachable

_FIRST_READ: Final = 16 * 1024
_JOIN_BELOW: Final = 128 * 1024
_SHORTEST: Final = 1e-6
_TIMEVAL: Final = struct.Struct("@ll")
_INTERIM: Final = 200  # statuses below announce an answer that is still to come
_CLOSED: Final = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


class Stale(Exception):
    """The server closed the connection before any byte of an answer."""


def connect(address: Address, seconds: float) -> socket.socket:
    """Raises ServerUnreachable, CallTimedOut."""
    try:
        return _over_tcp(address, seconds) if address.scheme is Scheme.HTTP else _over_socket(address, seconds)
    except (TimeoutError, BlockingIOError) as error:
        raise CallTimedOut(url=address.url, seconds=seconds) from error
    except OSError as error:
        raise ServerUnreachable(url=address.url, problem=error.strerror or str(error)) from error


def _over_tcp(address: Address, seconds: float) -> socket.socket:
    connected = socket.create_connection((address.host, address.port), timeout=seconds)
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _over_socket(address: Address, seconds: float) -> socket.socket:
    """Blocks in the kernel: a socket of Python's with a timeout fails at once when the server's queue is full (connect(2))."""
    with contextlib.ExitStack() as stack:
        connected = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))
        connected.connect(address.path)
        stack.pop_all()
    return connected


def set_timeouts(connected: socket.socket, seconds: float) -> None:
    """From now on a call of the system that waits longer raises BlockingIOError."""
    value = _timeval(seconds)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _timeval(seconds: float) -> bytes:
    """A timeout of zero would be none."""
    fraction, whole = math.modf(max(seconds, _SHORTEST))
    return _TIMEVAL.pack(int(whole), int(fraction * 1e6) if whole else max(1, int(fraction * 1e6)))


class Connection:
    """For one thread at a time. After any exception other than a refusal it must be closed: an answer may still be coming."""

    def __init__(self, address: Address, answers: Answers, seconds: float) -> None:
        self._url = address.url
        self._answers = answers
        self._socket = connect(address, seconds)
        self._seconds = 0.0
        self.used = False  # an answer has come over it
        self.idle_since = 0.0

    def close(self) -> None:
        self._socket.close()

    def alive(self) -> bool:
        """Whether the server has neither closed it nor sent what nobody asked for. Does not wait."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def exchange(self, message: Message, seconds: float, total: float) -> tuple[Head, memoryview]:
        """The next answer's head and body. `seconds` are left of `total`.

        Raises Stale, CallTimedOut, ConnectionBroken, AnswerNotUnderstood.
        """
        began = monotonic()
        self._limit(seconds)
        try:
            self._send(message, began + seconds)
            data = self._socket.recv(_FIRST_READ)
            if not data:
                raise Stale
            head, body = self._answer(data, began + seconds)
        except BlockingIOError as error:
            raise CallTimedOut(url=self._url, seconds=total) from error
        except _CLOSED as error:
            raise Stale from error
        except OSError as error:
            raise ServerUnreachable(url=self._url, problem=error.strerror or str(error)) from error
        self.used = True
        return head, body

    # --- sending

    def _limit(self, seconds: float) -> None:
        if seconds == self._seconds:
            return
        self._seconds = seconds
        set_timeouts(self._socket, seconds)

    def _send(self, message: Message, until: float) -> None:
        """A server that refuses a request before all of it was sent closes the connection: its answer is there all the same."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if message.size < _JOIN_BELOW:
                self._send_rest(memoryview(b"".join(message.parts)), until)
                return
            for part in message.parts:
                view = memoryview(part)
                if view.nbytes:  # what has none cannot be cast
                    self._send_rest(view.cast("B"), until)

    def _send_rest(self, data: memoryview, until: float) -> None:
        sent = self._socket.send(data)
        while sent < len(data):
            self._limit(self._left(until))
            sent += self._socket.send(data[sent:])

    def _left(self, until: float) -> float:
        left = until - monotonic()
        if left <= 0:
            raise BlockingIOError
        return left

    # --- receiving

    def _more(self, until: float) -> bytes:
        self._limit(self._left(until))
        try:
            data = self._socket.recv(_FIRST_READ)
        except _CLOSED as error:
            raise ConnectionBroken(url=self._url) from error
        if not data:
            raise ConnectionBroken(url=self._url)
        return data

    def _answer(self, data: bytes, until: float) -> tuple[Head, memoryview]:
        while True:
            while (end := data.find(HEAD_END)) < 0:
                if len(data) > MAX_HEAD:
                    raise self._answers.bad(f"its head has more than {MAX_HEAD} bytes")
                data += self._more(until)
            head = self._answers.head(data[:end])
            start = end + len(HEAD_END)
            if head.status >= _INTERIM:
                break
            data = data[start:]
        here = len(data) - start
        if here == head.length:
            return head, memoryview(data)[start:]
        if here > head.length:
            raise self._answers.bad("more came than its Content-Length says")
        return head, self._rest(head, memoryview(data)[start:], until)

    def _rest(self, head: Head, begun: memoryview, until: float) -> memoryview:
        body = room(head)
        at = len(begun)
        body[:at] = begun
        while at < head.length:
            self._limit(self._left(until))
            try:
                size = self._socket.recv_into(body[at:])
            except _CLOSED as error:
                raise ConnectionBroken(url=self._url) from error
            if not size:
                raise ConnectionBroken(url=self._url)
            at += size
        return body
