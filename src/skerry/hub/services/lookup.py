# SPDX-License-Identifier: Apache-2.0
"""Reading devices for many requests at once. As no request is answered by a read older than it, a revocation works at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from skerry.errors import NotFound
from skerry.hub.domain.devices import Device
from skerry.hub.services.together import Together

_AT_ONCE = 500


class _Store(Protocol):
    async def devices_by_id(self, device_ids: Collection[str]) -> dict[str, Device]: ...


class DeviceLookup:
    def __init__(self, store: _Store) -> None:
        self._together = Together(store.devices_by_id, at_once=_AT_ONCE)

    async def device(self, device_id: str) -> Device:
        """Raises NotFound for an unknown or deleted device, and what the store raises."""
        found = await self._together.one(device_id)
        if found is None:
            raise NotFound(kind="device", name=device_id)
        return found
