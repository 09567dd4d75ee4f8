# SPDX-License-Identifier: Apache-2.0
"""What a connection notes about itself, so that somebody else can end it well when this process is killed.

The default notes nothing; a runner under an agent has one that does (`runner/keeping.py`).
"""

from __future__ import annotations

import socket


class Line:
    """One connection's. Counts are bytes since the connection began, in whatever process."""

    def promise(self, sent: int, received: int, *, long: bool) -> None:
        """Before an answer is written: `sent` bytes in all with it, and then nothing is owed for the first `received`.

        `received` 0: something will still be owed. `long`: it may need more than one write.
        """

    def kept(self, sent: int) -> None:
        """After it was written, as far as it is known to be whole."""

    def leaving(self) -> None:
        """It is offered to another process, which may have it before `left` is said; a new promise takes that back."""

    def left(self) -> None:
        """Another process has the connection now; it stays open."""

    def ended(self) -> None:
        """The connection is over. Called while its socket is still open, and again without effect."""


class Ledger:
    def open(self, connected: socket.socket, *, sent: int = 0, received: int = 0) -> Line:
        """A new connection; or one that came from another process, with what was settled there."""
        del connected, sent, received
        return NOWHERE


NOWHERE = Line()
