# SPDX-License-Identifier: Apache-2.0
"""An answer written by the thread that computed it: the way over the loop would cost a slow model's client two wake-ups.

While a request is being answered nobody else writes to its connection. So a worker may, on a descriptor of its own (one that
cannot become another connection's), as long as nothing is queued before its answer and nothing has to be said after it.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

from skerry.serve.http.message import HttpResponse, QuickResponse, Sent, head_of


class Undisturbed(Protocol):
    """What is asked of the connection, on the worker's thread."""

    @property
    def undisturbed(self) -> bool:
        """The request asked about is still the only thing there is on this connection."""

    def promise(self, size: int, received: int) -> None:
        """Before `size` bytes are written; `received` had come when the request was complete."""


class Apart:
    """For one request. Made on the loop's thread."""

    def __init__(self, connection: Undisturbed, copy: socket.socket, received: int) -> None:
        self._connection = connection
        self._copy = copy
        self._received = received

    def send(self, response: HttpResponse | QuickResponse) -> Sent | None:
        """On the worker's thread, once. None when the answer has to go over the loop, and nothing was written."""
        if not self._connection.undisturbed:
            return None
        if isinstance(response, QuickResponse):
            data = b"".join((response.start, *response.tensors))
        else:
            data = head_of(response, connection="") + response.body
        self._connection.promise(len(data), self._received)
        try:
            sent = self._copy.send(data)
        except OSError:  # full, or the client has gone: the loop finds out which
            sent = 0
        return _ALL if sent == len(data) else Sent(rest=memoryview(data)[sent:])


_ALL: Final = Sent()
