# SPDX-License-Identifier: Apache-2.0
"""The agent's own answer to a client for whom there is no runner: one 503, whatever it asked, then the end of the connection.

It ends by lingering (RFC 9112 section 9.6): closing at once while the client still sends could destroy the answer on its way.
"""

from __future__ import annotations

import contextlib
import socket

import msgspec

from skerry.errors import SkerryError

_LINGER_SECONDS = 2.0
_ASK_SECONDS = 10.0
_HEAD_LIMIT = 64 * 1024
_HTTP2 = b"PRI * HTTP/2.0"  # its clients read an ended connection as UNAVAILABLE


def sorry(error: SkerryError, *, retry_after: int) -> bytes:
    """A whole HTTP/1.1 answer."""
    body = msgspec.json.encode({"error": str(error), "code": error.code})
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {retry_after}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


class Apology:
    """One connection. Non-blocking; `due` is the time to give up, on the same clock as `now`."""

    def __init__(self, connection: socket.socket, answer: bytes, *, now: float, asked: bool) -> None:
        """`asked`: the request was taken already; else it is waited for first."""
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.connection = connection
        self.over = False
        self.due = now + _ASK_SECONDS
        self._answer = answer
        self._said = False
        self._read = b""
        if asked:
            self._say(now)

    def readable(self, now: float) -> None:
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.over = True
        elif not self._said:
            self._read += data
            if self._read.startswith(_HTTP2):
                self.over = True
            elif b"\r\n\r\n" in self._read or len(self._read) > _HEAD_LIMIT:
                self._say(now)

    def close(self) -> None:
        self.connection.close()

    def _say(self, now: float) -> None:
        self._said, self._read = True, b""
        self.due = now + _LINGER_SECONDS
        try:
            self.connection.send(self._answer)  # a few hundred bytes after nothing else: whole, or the client is gone
        except OSError:
            self.over = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
