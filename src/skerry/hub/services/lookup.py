# SPDX-License-Identifier: Apache-2.0
"""Reading devices for many requests at once: what polls ask while one read is under way is answered by the next, together.

A request is only ever answered by a read that began after it, so a revocation works at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from itertools import islice
from typing import Protocol

from skerry.errors import NotFound
from skerry.hub.domain.devices import Device

_AT_ONCE = 500


class _Store(Protocol):
    async def devices_by_id(self, device_ids: Collection[str]) -> dict[str, Device]: ...


class DeviceLookup:
    def __init__(self, store: _Store) -> None:
        self._store = store
        self._asked: dict[str, asyncio.Future[Device]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def device(self, device_id: str) -> Device:
        """Raises NotFound for an unknown or deleted device, and what the store raises."""
        asked = self._asked.get(device_id)
        if asked is None:
            asked = self._asked[device_id] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(asked)

    async def _read(self) -> None:
        try:
            while self._asked:
                batch = {device_id: self._asked.pop(device_id) for device_id in tuple(islice(self._asked, _AT_ONCE))}
                await self._answer(batch)
        finally:
            self._reading = None

    async def _answer(self, batch: dict[str, asyncio.Future[Device]]) -> None:
        try:
            found = await self._store.devices_by_id(tuple(batch))
        except BaseException as error:
            for asked in batch.values():
                _fail(asked, error)
            if not isinstance(error, Exception):
                raise
            return
        for device_id, asked in batch.items():
            if device_id in found:
                asked.set_result(found[device_id])
            else:
                _fail(asked, NotFound(kind="device", name=device_id))


def _fail(asked: asyncio.Future[Device], error: BaseException) -> None:
    asked.set_exception(error)
    asked.exception()  # whoever asked may have gone: an answer nobody fetches is no defect
