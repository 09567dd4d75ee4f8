# SPDX-License-Identifier: Apache-2.0
"""The real clock and the real entropy."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """The functions themselves: a server asks for the time several times a request."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class SystemEntropy:
    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)
