# SPDX-License-Identifier: Apache-2.0
"""What a connection notes about itself, so that somebody else can end it well when this process is killed.

The default notes nothing; a runner under an agent has one that does (`runner/keeping.py`).
"""

from __future__ import annotations

import socket


class Line:
    """One connection's. Counts are bytes since the connection began, in whatever process."""

    def settled(self, received: int, sent: int) -> None:
        """Nothing is owed to the client now."""

    def long(self) -> None:
        """An answer too long for one write begins; until `settled` it may have left in part."""

    def multiplexed(self) -> None:
        """From now on answers are under way at any time (HTTP/2)."""

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
