# SPDX-License-Identifier: Apache-2.0
"""When devices were last seen, gathered and written in batches, so that a poll costs no write."""

from __future__ import annotations

from skerry.effects import Clock
from skerry.hub.store.interface import DeviceStore


class Presence:
    """What a killed hub loses of this is made good by the device's next poll."""

    def __init__(self, store: DeviceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[str, float] = {}

    def note(self, device_id: str) -> None:
        self._seen[device_id] = self._clock.now()

    async def flush(self) -> int:
        """Write what was noted; returns how many devices. On failure it is kept for the next time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return 0
        try:
            await self._store.touch(seen)
        except BaseException:
            self._seen = seen | self._seen
            raise
        return len(seen)
