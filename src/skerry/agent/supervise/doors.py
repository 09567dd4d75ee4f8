# SPDX-License-Identifier: Apache-2.0
"""What a workload is reached by: the sockets that outlive its runners. The agent owns them, runners inherit them.

    tcp       its own port
    unix      RUN/<workload>.sock, mode 0660: the same HTTP for callers on this machine
    exchange  RUN/<workload>.x.sock, mode 0600, datagrams: connections that others hand over to whoever runs it now

RUN is $RUNTIME_DIRECTORY where systemd made one, else STATE/run. A unix path may have 107 bytes: where RUN is too deep a
workload has its TCP port only, and says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skerry.agent.supervise import sockets
from skerry.agent.supervise.orphans import Orphan

_log = logging.getLogger(__name__)

_LONGEST = 107
_HANDED_OVER_BYTES = 4 * 1024 * 1024  # of what may wait in an exchange


@dataclass(frozen=True, kw_only=True)
class Ports:
    """`base` 0 = any free port; `address` HOST:PORT of the whole box, empty = none; `run` None = no unix sockets."""

    host: str = "127.0.0.1"
    base: int = 0
    address: str = ""
    run: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Doors:
    tcp: socket.socket
    unix: socket.socket | None = None
    exchange: socket.socket | None = None
    unix_path: str = ""
    exchange_path: str = ""
    problem: str = ""  # why there is no unix socket

    @property
    def port(self) -> int:
        return int(self.tcp.getsockname()[1])

    def listen(self) -> None:
        """A socket bound beside an orphan's listens from here on."""
        for each in (self.tcp, self.unix):
            if each is not None:
                each.listen(sockets.BACKLOG)

    def close(self) -> None:
        """The workload is gone: so are its paths."""
        for path in filter(None, (self.unix_path, self.exchange_path)):
            with contextlib.suppress(OSError):
                Path(path).unlink()
        for each in (self.tcp, self.unix, self.exchange):
            if each is not None:
                each.close()


def run_folder(state: Path) -> Path:
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(given) if given else state / "run"


def open_doors(ports: Ports, workload: str, port: int, orphans: Iterable[Orphan]) -> Doors:
    """Those of an orphan of the workload where there is one. Raises AddressTaken."""
    others = [orphan for orphan in orphans if port and orphan.port == port]
    tcp = _adopted_port(ports, port, others) or sockets.listen(ports.host, port, base=ports.base)
    if ports.run is None:
        return Doors(tcp=tcp)
    path, exchange_path = ports.run / f"{workload}.sock", ports.run / f"{workload}.x.sock"
    try:
        ports.run.mkdir(mode=0o750, parents=True, exist_ok=True)
        unix = _adopted(path, [(each, each.unix_fd) for each in others]) or _bound(path, socket.SOCK_STREAM, 0o660)
        exchange = _adopted(exchange_path, [(each, each.exchange_fd) for each in others]) or _bound(
            exchange_path, socket.SOCK_DGRAM, 0o600
        )
    except OSError as error:
        _log.warning("no unix socket workload=%s path=%s error=%s", workload, path, error)
        return Doors(tcp=tcp, problem=f"no unix socket: {error.strerror or error}")
    return Doors(tcp=tcp, unix=unix, exchange=exchange, unix_path=str(path), exchange_path=str(exchange_path))


def private_door(ports: Ports, workload: str) -> tuple[socket.socket | None, str]:
    """A unix socket only this user's processes can reach, for a trial, and its path; none where there is no place for one."""
    if ports.run is None:
        return None, ""
    path = ports.run / f"{workload}.t.sock"
    try:
        ports.run.mkdir(mode=0o750, parents=True, exist_ok=True)
        return _bound(path, socket.SOCK_STREAM, 0o600), str(path)
    except OSError as error:
        _log.warning("no private socket workload=%s error=%s", workload, error)
        return None, ""


def _adopted_port(ports: Ports, port: int, orphans: list[Orphan]) -> socket.socket | None:
    for orphan in orphans:
        return sockets.take_over(orphan.pidfd, orphan.listen_fd, port=port) or sockets.listen_beside(ports.host, port)
    return None


def _adopted(path: Path, held: list[tuple[Orphan, int]]) -> socket.socket | None:
    """Only while its path still leads to it, as far as can be told."""
    for orphan, number in held:
        if number >= 0 and path.is_socket():
            return sockets.take_over_unix(orphan.pidfd, number)
    return None


def _bound(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """What stood there before, of an agent that was killed, gives way in one step. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    if len(os.fsencode(fresh)) > _LONGEST:
        raise OSError(f"{path} is longer than the {_LONGEST - 5} bytes that a unix socket's path may have")
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        os.fchmod(made.fileno(), mode)  # before bind, which takes it over less the umask: never more open than that
        fresh.unlink(missing_ok=True)
        made.bind(str(fresh))
        fresh.chmod(mode)
        if kind is socket.SOCK_STREAM:
            made.listen(sockets.BACKLOG)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HANDED_OVER_BYTES)
        fresh.replace(path)
    except OSError:
        made.close()
        raise
    return made
