# SPDX-License-Identifier: Apache-2.0
"""One address for the whole box: a listening socket all runners share, and the table of who serves what behind it.

Whichever runner accepts a connection answers it when the model is its own; else it hands the connection to the workload that
serves the model (runner/exchange.py), so that no request goes through a proxy.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from skerry.agent.supervise import sockets
from skerry.agent.supervise.doors import Doors
from skerry.agent.supervise.orphans import Orphan
from skerry.agent.update.contract import Launch
from skerry.errors import UsageError
from skerry.wire.v1.runner import Route

_LAST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """Every socket that a runner gets from the agent."""

    doors: Doors
    keeper: socket.socket | None = None
    box: socket.socket | None = None
    private: socket.socket | None = None  # of a runner that may be tried before it serves
    private_path: str = ""

    def numbers(self) -> dict[str, int]:
        """By the names of `wire.v1.runner.Start`; those there are."""
        doors = self.doors
        named = {
            "listen_fd": doors.tcp,
            "unix_fd": doors.unix,
            "exchange_fd": doors.exchange,
            "box_fd": self.box,
            "keeper_fd": self.keeper,
            "private_fd": self.private,
        }
        return {name: each.fileno() for name, each in named.items() if each is not None}


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise UsageError(detail=f"address {text!r} is not HOST:PORT")
    return host, int(port)


def open_box(address: str, orphans: Iterable[Orphan]) -> socket.socket | None:
    """The box's listening socket: that of an orphan where there is one. None without an address. Raises AddressTaken."""
    if not address:
        return None
    host, port = parse_address(address)
    held = [orphan for orphan in orphans if orphan.box_fd >= 0]
    for orphan in held:
        taken = sockets.take_over(orphan.pidfd, orphan.box_fd, port=port)
        if taken is not None:
            return taken
    return sockets.listen(host, port)


def shown(box: socket.socket | None) -> str:
    """HOST:PORT; empty for None."""
    if box is None:
        return ""
    host, port = box.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def route(launch: Launch, doors: Doors, *, up: bool) -> Route:
    model, _, version = launch.bundle.partition(":")
    return Route(
        workload=launch.workload,
        model=model,
        version=version,
        exchange=doors.exchange_path,
        unix=doors.unix_path,
        up=up,
        port=doors.port,
    )
