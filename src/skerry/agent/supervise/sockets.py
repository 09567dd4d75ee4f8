# SPDX-License-Identifier: Apache-2.0
"""Listening sockets: owned by the agent, inherited by runners, taken back from the runners of an agent that was killed.

- A new port is bound without SO_REUSEPORT, so two agents can never share one by accident; the option is set afterwards.
- After a kill -9 the old runner still serves on the socket. `take_over` gets that very socket with pidfd_getfd (Linux 5.6;
  needs the right to trace the process): connections already queued on it are not lost.
- Where that right is missing, a second socket is bound to the port with SO_REUSEPORT beside the old one. Then only
  connections that sit in the old queue at the moment the old runner ends can be reset.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket

from skerry.errors import AddressTaken

_log = logging.getLogger(__name__)
_PIDFD_GETFD = 438  # the same number on every architecture
_PORTS_TRIED = 200
BACKLOG = 512

_libc = ctypes.CDLL(None, use_errno=True)


def listen(host: str, port: int, *, base: int = 0) -> socket.socket:
    """A listening socket on `port`; when that is 0, on the first free one from `base` up, or any. Raises AddressTaken."""
    problem = ""
    for candidate in range(base, min(base + _PORTS_TRIED, 65536)) if base and not port else (port,):
        try:
            return _bound(host, candidate)
        except OSError as error:
            problem = error.strerror or str(error)
    shown = f"{host}:{port or base or 'any port'}" + (f"..{base + _PORTS_TRIED - 1}" if base and not port else "")
    raise AddressTaken(address=shown, problem=problem)


def listen_beside(host: str, port: int) -> socket.socket:
    """A second socket on a port whose first one belongs to a runner of this user.

    It does not listen yet: the kernel would at once give it half of the connections, with nobody there to accept them.
    """
    return _bound(host, port, shared=True)


def take_over(pidfd: int, number: int, *, port: int) -> socket.socket | None:
    """The listening socket that process has under descriptor `number`; None when it cannot be had."""
    taken = _taken(pidfd, number)
    if taken is not None and not _listens_on(taken, port):
        taken.close()
        return None
    return taken


def take_over_unix(pidfd: int, number: int) -> socket.socket | None:
    """The same for a unix socket of any kind."""
    taken = _taken(pidfd, number)
    if taken is not None and taken.family is not socket.AF_UNIX:
        taken.close()
        return None
    return taken


def _taken(pidfd: int, number: int) -> socket.socket | None:
    stolen = int(_libc.syscall(_PIDFD_GETFD, pidfd, number, 0))
    if stolen < 0:
        _log.info("take over refused error=%s", os.strerror(ctypes.get_errno()))
        return None
    try:
        return socket.socket(fileno=stolen)
    except OSError:
        os.close(stolen)
        return None


def _listens_on(taken: socket.socket, port: int) -> bool:
    try:
        return (
            bool(taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            and taken.family in {socket.AF_INET, socket.AF_INET6}
            and taken.getsockname()[1] == port
        )
    except OSError:
        return False


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if not shared:
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
