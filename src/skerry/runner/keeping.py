# SPDX-License-Identifier: Apache-2.0
"""The runner's side of the keeper (wire/v1/keeper.py): the agent gets a copy of every connection and reads our table.

Costs a client's request three stores into shared memory, and a connection two short messages. Where the agent does not keep up
or is gone, connections have no copy: they work as well, until this process is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import socket
from collections import deque
from typing import Final

from skerry.serve.ledger import NOWHERE, Ledger, Line
from skerry.wire.v1 import keeper as wire

_logger = logging.getLogger(__name__)

LINES: Final = 1280
_WORDS: Final = 3  # of a line


class _KeptLine(Line):
    __slots__ = ("_at", "_book", "_connected", "_keeper", "_open")

    def __init__(self, keeper: Keeping, number: int, book: memoryview, connected: socket.socket) -> None:
        self._keeper = keeper
        self._book = book
        self._at = number * _WORDS
        self._connected = connected
        self._open = True

    def promise(self, sent: int, received: int, *, long: bool) -> None:
        at = (
            self._at
        )  # in this order: killed anywhere between, a connection that owes an answer is never taken for idle
        self._book[at + 1] = sent | wire.LONG if long else sent
        self._book[at + 2] = received

    def kept(self, sent: int) -> None:
        self._book[self._at] = sent

    def leaving(self) -> None:
        self._book[self._at + 1] |= wire.LEAVING

    def left(self) -> None:
        if self._open:
            self._open = False
            self._keeper.closed(self._at // _WORDS)

    def ended(self) -> None:
        if self._open:
            with contextlib.suppress(OSError):  # else the agent's copy would keep it open for the client
                self._connected.shutdown(socket.SHUT_RDWR)
            self.left()


class Keeping:
    """All lines of this process."""

    def __init__(self, descriptor: int) -> None:
        """Takes the inherited socket over."""
        self._channel = socket.socket(fileno=descriptor)
        self._channel.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._free = deque(range(LINES))
        self._unsaid: deque[int] = deque()
        self._alone = False
        self._book = self._table()

    def ledger(self, *, box: bool) -> Ledger:
        """For connections that come in on the workload's own sockets, or on the box's."""
        return _KeptLedger(self, wire.OPENED_BOX if box else wire.OPENED)

    def open(self, kind: int, connected: socket.socket, sent: int, received: int) -> Line:
        self._catch_up()
        if self._alone or self._unsaid or not self._free:
            return NOWHERE
        number = self._free[0]
        if sent or received:  # else it is all zero
            self._write(number, sent, received)
        if not self._say(kind, number, connected.fileno()):
            self._write(number, 0, 0)
            return NOWHERE
        self._free.popleft()
        return _KeptLine(self, number, self._book, connected)

    def closed(self, number: int) -> None:
        self._unsaid.append(number)
        self._catch_up()

    def _catch_up(self) -> None:
        """A line is used again only when the agent was told that it is free."""
        while self._unsaid and self._say(wire.CLOSED, self._unsaid[0]):
            number = self._unsaid.popleft()
            self._write(number, 0, 0)
            self._free.append(number)

    def _write(self, number: int, sent: int, received: int) -> None:
        at = number * _WORDS
        self._book[at] = self._book[at + 1] = sent
        self._book[at + 2] = received

    def _say(self, kind: int, number: int, *descriptors: int) -> bool:
        try:
            socket.send_fds(self._channel, [wire.MESSAGE.pack(kind, number)], descriptors)
        except BlockingIOError:
            return False
        except OSError as error:  # the agent is gone, or there are too many descriptors on their way
            if isinstance(error, ConnectionError):
                self._alone = True
                self._unsaid.clear()
            return False
        return True

    def _table(self) -> memoryview:
        size = LINES * wire.LINE.size
        memory = os.memfd_create("skerry-connections", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, size)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            table = mmap.mmap(memory, size)
            self._alone = not self._say(wire.TABLE, 0, memory)
        finally:
            os.close(memory)
        return memoryview(table).cast("Q")


class _KeptLedger(Ledger):
    def __init__(self, keeping: Keeping, kind: int) -> None:
        self._keeping = keeping
        self._kind = kind

    def open(self, connected: socket.socket, *, sent: int = 0, received: int = 0) -> Line:
        return self._keeping.open(self._kind, connected, sent, received)
