# SPDX-License-Identifier: Apache-2.0
"""What a client may ask of one connection, and the account that frames without work in them are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ServerLimits(Protocol):
    """Those a connection shares with HTTP/1.1: `serve.http.connection.Limits`."""

    @property
    def body_bytes(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def small_body(self) -> int: ...
    @property
    def head_bytes(self) -> int: ...
    @property
    def idle_seconds(self) -> float: ...
    @property
    def request_seconds(self) -> float: ...
    @property
    def write_seconds(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class GrpcLimits:
    streams: int = 100  # calls at a time, cancelled ones that still run among them
    frame_bytes: int = 1024 * 1024
    header_list_bytes: int = 16 * 1024  # decoded
    continuations: int = 16  # frames of one header block
    settings: int = 64  # in one frame
    unsent_bytes: int = 128 * 1024 * 1024  # of answers the client takes too slowly
    burst: int = 1000  # frames without work in them at once ..
    per_second: int = 100  # .. and for good
    per_call: int = 8  # earned by every call that was answered, and by every frame of its answer


class Allowance:
    """How many frames without work in them (pings, resets, settings, empty data, ..) a client may still send.

    It is what stops floods of them, CVE-2019-9512 to 9518 and CVE-2023-44487, without looking at kinds: honest clients
    send a few per call.
    """

    def __init__(self, limits: GrpcLimits, now: float) -> None:
        self._limits = limits
        self._left = float(limits.burst)
        self._since = now

    def earn(self, frames: int = 1) -> None:
        self._left += frames * self._limits.per_call

    def spend(self, now: float) -> bool:
        """False when there is none left."""
        limits = self._limits
        self._left = min(self._left + (now - self._since) * limits.per_second, limits.burst)
        self._since = now
        self._left -= 1
        return self._left >= 0
