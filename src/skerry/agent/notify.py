# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how we are: sd_notify(3) over the datagram socket in NOTIFY_SOCKET. Without one, nothing happens."""

from __future__ import annotations

import os
import socket


class Notifier:
    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")

    def tell(self, **facts: str | int) -> None:
        """For example READY=1, STATUS="serving 2 workloads", WATCHDOG=1, STOPPING=1."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{key}={value}" for key, value in facts.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(text.encode(), address)
        except OSError:  # whoever supervises us is gone; that is no reason to stop
            return


def watchdog_seconds() -> float:
    """How often systemd wants to hear of us, halved as sd_watchdog_enabled(3) advises; 0 = it does not."""
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    except ValueError:
        return 0.0
