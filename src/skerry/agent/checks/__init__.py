# SPDX-License-Identifier: Apache-2.0
"""Trouble on a device, one small file per kind. A check is pure: it looks at what was observed and names an issue, or not."""

from __future__ import annotations

from msgspec import Struct


class Observed(Struct, frozen=True, kw_only=True):
    """Times in seconds UTC, sizes in bytes."""

    now: float
    free: int
    time_floor: float = 0.0
    hub_ahead: float = 0.0  # seconds by which the hub's clock is ahead of ours
    refreshed: float = 0.0  # last time the catalogue was refreshed; 0 = not since the start
    started: float = 0.0
    crash_loops: tuple[str, ...] = ()  # workloads
    history_broken: str = ""
    floors_damaged: str = ""
    outbox_dropped: int = 0
    assignment_refused: str = ""  # why, when the hub's newest is not followed


class Issue(Struct, frozen=True, kw_only=True):
    """`name` is stable; `detail` may change from one look to the next."""

    name: str
    detail: str

    @property
    def text(self) -> str:
        return f"{self.name}: {self.detail}"
