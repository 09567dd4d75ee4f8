# SPDX-License-Identifier: Apache-2.0
"""Client connections that change hands: to the runner whose model is asked for, and from a runner that died.

The socket itself goes (SCM_RIGHTS), with the request already read from it: the client notices nothing, and there is no proxy
in its way. A workload's exchange is the agent's: what waits in it outlives the runner it was meant for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from array import array
from collections.abc import Callable
from typing import Final

from skerry.serve.http.call import BODY_LIMIT
from skerry.serve.http.connection import Begun, Connection
from skerry.serve.http.message import Head, HttpRequest
from skerry.serve.http.server import HttpServer
from skerry.wire.v1 import keeper as wire

_logger = logging.getLogger(__name__)

_A_TURN: Final = 32
_LARGEST: Final = 100 * 1024  # of a message: a head of 32 KiB, a body of 48 KiB, and what is around them
_BUFFER: Final = 1 << 20


class Outgoing:
    """Sends to any exchange."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def send(self, path: str, connection: Connection, *, box: bool) -> bool:
        """Hand the connection over, with the request that is about to be handled. False when that is not possible now."""
        offered = connection.offer()
        if offered is None:
            return False
        connected, begun = offered
        descriptors = [connected.fileno()]
        try:
            handed = _handed(begun, box=box)
            if handed.spilled and begun.request is not None:
                descriptors.append(_spill(begun.request.body))
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
            self._socket.sendmsg([wire.encode(handed)], [rights], 0, path)  # socket.send_fds loses the address
        except OSError as error:
            _logger.debug("not handed over to %s: %s", path, error)
            connection.stays()
            return False
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            connected.close()
        connection.handed_over()
        return True

    def close(self) -> None:
        self._socket.close()


class Incoming:
    """Takes over what is handed to this workload: by `own` what came in on its own sockets, by `box` the rest."""

    def __init__(self, descriptor: int, *, own: HttpServer, box: HttpServer | None, now: Callable[[], float]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._own = own
        self._box = box
        self._now = now

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def stop(self) -> None:
        """What comes from now on is for the workload's next runner."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_A_TURN):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _LARGEST, 2)
            except BlockingIOError:
                return
            except OSError as error:
                _logger.warning("nothing taken over: %s", error.strerror)
                return
            self._take(data, descriptors)

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        try:
            handed = wire.decode(data)
            server = self._box if handed.box and self._box is not None else self._own
            connected = socket.socket(fileno=descriptors[0])
        except (ValueError, IndexError, OSError) as error:
            _logger.warning("not taken over: %s", error)
            for descriptor in descriptors:
                os.close(descriptor)
            return
        line = server.ledger.open(connected, sent=handed.sent, received=handed.settled)
        try:
            body = _spilled(descriptors[1]) if handed.spilled else None
        except (IndexError, OSError) as error:
            _logger.warning("the body of a request was lost: %s", error)
            line.ended()
            connected.close()
            return
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        server.adopt(connected, line, _begun(handed, body, self._now()))


def _handed(begun: Begun, *, box: bool) -> wire.Handed:
    request, spilled = None, False
    if begun.request is not None:
        head, body = begun.request.head, begun.request.body
        spilled = len(body) > wire.LARGEST_INLINE
        request = wire.HandedRequest(
            method=head.method,
            target=head.target,
            headers=head.headers,
            body=b"" if spilled else body,
            keep_alive=head.keep_alive,
            old=head.old,
        )
    return wire.Handed(
        box=box, received=begun.received, sent=begun.sent, settled=begun.settled, request=request, spilled=spilled
    )


def _begun(handed: wire.Handed, spilled: bytes | None, now: float) -> Begun:
    request, given = None, handed.request
    if given is not None:
        body = given.body if spilled is None else spilled
        head = Head(
            method=given.method,
            target=given.target,
            headers=given.headers,
            length=len(body),
            keep_alive=given.keep_alive,
            old=given.old,
        )
        request = HttpRequest(head=head, body=body, received=now)
    return Begun(received=handed.received, sent=handed.sent, settled=handed.settled, request=request)


def _spill(body: bytes) -> int:
    memory = os.memfd_create("skerry-body", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(body)
    except OSError:
        os.close(memory)
        raise
    return memory


def _spilled(memory: int) -> bytes:
    """Raises OSError for what is no file, as a pipe that would be waited for, or is larger than a body may be."""
    info = os.fstat(memory)
    if not stat.S_ISREG(info.st_mode) or info.st_size > BODY_LIMIT:
        raise OSError(errno.EINVAL, "not the body of a request")
    with os.fdopen(os.dup(memory), "rb") as file:
        file.seek(0)
        return file.read(BODY_LIMIT)
