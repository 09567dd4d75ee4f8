# SPDX-License-Identifier: Apache-2.0
"""The control channel to the agent (wire/v1/runner.py): one JSON object a line over a unix stream socket.

Two phases: blocking while the variant is loaded (nothing else happens then), and asynchronous once the runner serves.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, cast

import msgspec

from skerry.wire.v1.runner import Command, Event

_MAX_LINE: Final = 1024 * 1024
_logger = logging.getLogger(__name__)
_decoder: Final[msgspec.json.Decoder[Command]] = msgspec.json.Decoder(Command)


class BadCommand(ValueError):
    """The agent sent a line that is no command: it is of another version, or it is not the agent."""


def encode(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


class Lines:
    """Bytes in, commands out. Raises BadCommand."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Command]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE or any(len(line) > _MAX_LINE for line in lines):
            raise BadCommand(f"a line of more than {_MAX_LINE} bytes")
        return [self._command(line) for line in lines if line.strip()]

    @staticmethod
    def _command(line: bytes) -> Command:
        try:
            return _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise BadCommand(str(error)) from error


class BlockingControl:
    """Before serving."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(True)  # noqa: FBT003 - the standard library's signature
        self.lines = Lines()
        self.early: list[Command] = []  # read already, not asked for yet

    def send(self, event: Event) -> None:
        """An agent that is gone is no error here: the next `receive` tells."""
        try:
            self.socket.sendall(encode(event))
        except OSError as error:
            _logger.warning("agent is gone: %s", error.strerror)

    def receive(self) -> Command | None:
        """The next command; None at the end of file. Raises BadCommand."""
        while not self.early:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self.early += self.lines.feed(data)
        return self.early.pop(0)


class Control(asyncio.Protocol):
    """While serving. `command` is called for every command, `gone` once when the agent has died."""

    def __init__(self, lines: Lines, command: Callable[[Command], None], gone: Callable[[], None]) -> None:
        self._lines = lines
        self._command = command
        self._gone = gone
        self._transport: asyncio.Transport | None = None

    @property
    def connected(self) -> bool:
        return self._transport is not None

    @property
    def unsent(self) -> int:
        """Bytes the agent has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def send(self, event: Event) -> None:
        """Nothing happens when the agent is gone."""
        if self._transport is not None:
            self._transport.write(encode(event))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            commands = self._lines.feed(data)
        except BadCommand:
            _logger.exception("control line ignored")
            return
        for command in commands:
            self._command(command)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._gone()
