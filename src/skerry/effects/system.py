# SPDX-License-Identifier: Apache-2.0
"""The real clock and the real entropy."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class SystemEntropy:
    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)
