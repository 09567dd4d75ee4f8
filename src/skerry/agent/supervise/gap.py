# SPDX-License-Identifier: Apache-2.0
"""A workload that should be served and is not: its doors, as the agent opens them in its stead."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from typing import Final

from skerry.agent.supervise.apology import sorry
from skerry.agent.supervise.doors import Doors
from skerry.errors import ModelDown
from skerry.wire.v1 import keeper as wire

_log = logging.getLogger(__name__)

_RETRY_AFTER: Final = 5
_A_TURN: Final = 64
_LARGEST: Final = 100 * 1024  # of a message to an exchange


class Gap:
    def __init__(self, workload: str, doors: Doors, *, since: float) -> None:
        """Copies of the doors: the workload may be removed meanwhile."""
        self.workload = workload
        self.since = since
        self.apologising = False
        self.answer = sorry(ModelDown(name=workload), retry_after=_RETRY_AFTER)
        self.sockets = [each.dup() for each in (doors.tcp, doors.unix, doors.exchange) if each is not None]
        for each in self.sockets:
            each.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def arrivals(self, which: socket.socket, *, room: int) -> Iterator[tuple[socket.socket, wire.Handed | None]]:
        """Connections that came in by one of `sockets`; None for one that is new."""
        for _ in range(min(room, _A_TURN)):
            try:
                if which.type is socket.SOCK_DGRAM:
                    yield from _handed(which)
                else:
                    yield which.accept()[0], None
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors, say
                _log.warning("accepts nothing workload=%s error=%s", self.workload, error)
                return

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def _handed(exchange: socket.socket) -> Iterator[tuple[socket.socket, wire.Handed | None]]:
    data, descriptors, _, _ = socket.recv_fds(exchange, _LARGEST, 2)
    if not descriptors:
        return
    for more in descriptors[1:]:  # the request's body
        os.close(more)
    try:
        connection = socket.socket(fileno=descriptors[0])
    except OSError:  # no connection at all
        os.close(descriptors[0])
        return
    try:
        yield connection, wire.decode(data)
    except ValueError:
        connection.close()
