# SPDX-License-Identifier: Apache-2.0
"""What becomes of a client connection whose runner died: pure, from what the runner noted and what the kernel counted.

The kernel's counts are what makes it exact: a runner can be killed between any two instructions, also between taking bytes
off a socket and noting it. Unix sockets have no such counts: there a client that waits cannot be told from one that is idle,
and both are answered; an idle one reads that with its next request, which nobody has seen.
"""

from __future__ import annotations

import fcntl
import mmap
import socket
import struct
import termios
from dataclasses import dataclass
from enum import StrEnum

from skerry.wire.v1 import keeper as wire

_SIOCOUTQ = 0x5411  # linux/sockios.h: bytes not yet acknowledged (TCP), not yet read by the peer (unix)
_TCP_INFO_BYTES = 136
_COUNTS_AT = 120  # of tcpi_bytes_acked and tcpi_bytes_received in linux/tcp.h: struct tcp_info
_ESTABLISHED, _CLOSE_WAIT = 1, 8


class Verdict(StrEnum):
    HAND_ON = "hand-on"  # idle: the next runner goes on with it
    ANSWER = "answer"  # a request was taken and nothing answered: one 503, then close
    LET_GO = "let-go"  # another runner has it: the copy goes, the connection stays
    CLOSE = "close"  # an answer had begun, or nobody is there


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A line of the runner's table: wire/v1/keeper.py."""

    kept: int
    promised: int
    received: int
    long: bool = False
    leaving: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the kernel tells. `consumed` bytes left the socket for the runner, `sent` were given to the kernel; None = it
    does not count. `unread` bytes are on their way to the client.
    """

    open: bool = True
    unread: int = 0
    consumed: int | None = None
    sent: int | None = None


def judge(noted: Noted, seen: Seen) -> Verdict:
    if noted.leaving:
        return Verdict.LET_GO
    if not seen.open:
        return Verdict.CLOSE
    if seen.consumed is None or seen.sent is None:
        in_part = noted.long and noted.kept != noted.promised
        return Verdict.CLOSE if in_part or seen.unread else Verdict.ANSWER
    if seen.sent == noted.promised and seen.consumed == noted.received:
        return Verdict.HAND_ON
    return Verdict.ANSWER if seen.sent in {noted.promised, noted.kept} else Verdict.CLOSE


def read_line(table: bytes | mmap.mmap, line: int) -> Noted:
    kept, promised, received = wire.LINE.unpack_from(table, line * wire.LINE.size)
    return Noted(
        kept=kept,
        promised=promised & wire.COUNT,
        received=received,
        long=bool(promised & wire.LONG),
        leaving=bool(promised & wire.LEAVING),
    )


def look(connection: socket.socket) -> Seen:
    """Raises OSError when it is none any more."""
    unread = _count(connection, _SIOCOUTQ)
    if connection.family is socket.AF_UNIX:
        return Seen(unread=unread)
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if info[0] not in {_ESTABLISHED, _CLOSE_WAIT}:
        return Seen(open=False)
    if len(info) < _TCP_INFO_BYTES:
        return Seen(unread=unread)
    acknowledged, received = struct.unpack_from("=QQ", info, _COUNTS_AT)
    end = 1 if info[0] == _CLOSE_WAIT else 0  # the client's FIN counts as a byte
    return Seen(
        unread=unread,
        consumed=received - end - _count(connection, termios.FIONREAD),
        sent=acknowledged + unread,
    )


def _count(connection: socket.socket, request: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(connection, request, bytes(4)))[0])
