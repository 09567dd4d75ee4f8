# SPDX-License-Identifier: Apache-2.0
"""How client connections survive a runner: what it tells the agent of them, and what hands one over to another runner.

Keeper (unix seqpacket socket, runner -> agent): one MESSAGE a packet, kind and line, with one descriptor where it says so.

    TABLE        + memfd        once, first: LINE_BYTES a line, written by the runner, read by the agent when it has died
    OPENED       + connection   the line is this connection's, accepted on the workload's own sockets
    OPENED_BOX   + connection   the same, accepted on the address of the whole box
    CLOSED                      the connection is gone, the line free

A line of the table counts bytes since the connection began: sent with every answer that was written, sent with the answer
that is being written, and received when nothing will be owed after that one (0 = something will). The kernel counts too, and
comparing tells the agent what happened up to the last instruction (`agent/supervise/verdict.py`).

Exchange (unix datagram socket of a workload): a `Handed` as msgpack, with the connection and, when `spilled`, a memfd with
the body of its request.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

TABLE: Final = 0
OPENED: Final = 1
OPENED_BOX: Final = 2
CLOSED: Final = 3
MESSAGE: Final = Layout("<BI")

LINE: Final = Layout("<QQQ")  # in the machine's own order on every machine we run on
LONG: Final = 1 << 63  # with the second: the answer may need more than one write
LEAVING: Final = 1 << 62  # with the second: another process may have the connection already
COUNT: Final = LEAVING - 1

LARGEST_INLINE: Final = 48 * 1024
"""Larger bodies are spilled: a datagram has to fit into the smallest send buffer."""


Bytes = Annotated[int, Meta(ge=0, le=2**60)]  # since the connection began


class HandedRequest(Struct, frozen=True, kw_only=True, array_like=True):
    """Received whole, not answered. `target` still percent-encoded, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool
    old: bool  # HTTP/1.0


class Handed(Struct, frozen=True, kw_only=True, array_like=True):
    """A connection on its way. Byte counts since it began: `settled` of `received` were answered, with `sent`."""

    box: bool  # it came in on the address of the whole box
    received: Bytes = 0
    sent: Bytes = 0
    settled: Bytes = 0
    request: HandedRequest | None = None
    spilled: bool = False


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Handed).decode
