# SPDX-License-Identifier: Apache-2.0
"""Copies of one runner's client connections, as it announces them (wire/v1/keeper.py)."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from skerry.agent.supervise.verdict import Noted, Verdict, judge, look, read_line
from skerry.wire.v1 import keeper as wire

_log = logging.getLogger(__name__)

_A_TURN: Final = 512  # messages, then the others have their turn
_LARGEST_TABLE: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Copy:
    connection: socket.socket
    box: bool
    noted: Noted
    verdict: Verdict


class Copies:
    """`channel` is the agent's end. Not safe from several threads."""

    def __init__(self, workload: str, channel: socket.socket) -> None:
        channel.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.workload = workload
        self.channel = channel
        self._table: mmap.mmap | None = None
        self._lines: dict[int, tuple[socket.socket, bool]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def take(self, *, room: int) -> bool:
        """What the runner has said so far; at most `room` copies more. False when it has died."""
        for _ in range(_A_TURN):
            try:
                data, descriptors, _, _ = socket.recv_fds(self.channel, wire.MESSAGE.size, 1)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._take(data, list(descriptors), room=room)
        return True

    def judged(self) -> Iterator[Copy]:
        """What becomes of each connection of the runner that has died. They are the caller's from here on."""
        lines, self._lines = self._lines, {}
        for number, (connection, box) in lines.items():
            noted = self._noted(number)
            verdict = Verdict.CLOSE
            with contextlib.suppress(OSError):
                seen = look(connection)
                verdict = judge(noted, seen)
                _log.info("connection workload=%s verdict=%s %s %s", self.workload, verdict, noted, seen)
            yield Copy(connection=connection, box=box, noted=noted, verdict=verdict)

    def close(self) -> None:
        for connection, _ in self._lines.values():
            connection.close()
        self._lines.clear()
        self.channel.close()
        if self._table is not None:
            self._table.close()
            self._table = None

    def _take(self, data: bytes, descriptors: list[int], *, room: int) -> None:
        if len(data) != wire.MESSAGE.size:
            kind, number = -1, 0
        else:
            kind, number = wire.MESSAGE.unpack(data)
        try:
            if kind == wire.CLOSED:
                self._forget(number)
            elif kind == wire.TABLE and descriptors and self._table is None:
                self._map(descriptors[0])
            elif kind in {wire.OPENED, wire.OPENED_BOX} and descriptors and len(self._lines) < room:
                self._forget(number)
                connection = socket.socket(fileno=descriptors[0])
                descriptors.clear()
                self._lines[number] = (connection, kind == wire.OPENED_BOX)
        except (OSError, ValueError) as error:  # no connection, or no table: a runner is not trusted to send any
            _log.warning("not taken workload=%s kind=%d error=%s", self.workload, kind, error)
        for descriptor in descriptors:
            os.close(descriptor)

    def _forget(self, number: int) -> None:
        connection, _ = self._lines.pop(number, (None, False))
        if connection is not None:
            connection.close()

    def _map(self, descriptor: int) -> None:
        """A runner is not trusted with the agent's memory: one it shrank later would kill the agent at the first read."""
        size = os.fstat(descriptor).st_size
        if wire.LINE.size <= size <= _LARGEST_TABLE and _sealed(descriptor):
            self._table = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        else:
            _log.warning("table refused workload=%s size=%d", self.workload, size)

    def _noted(self, number: int) -> Noted:
        if self._table is None or (number + 1) * wire.LINE.size > len(self._table):
            return Noted(kept=0, promised=0, received=0)
        return read_line(self._table, number)


def _sealed(descriptor: int) -> bool:
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
