# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest

from skerry.errors import DatabaseUnavailable, NotFound
from skerry.hub.domain.devices import Device
from skerry.hub.services.lookup import DeviceLookup
from skerry.wire.v1.device import Capabilities


def a_device(device_id):
    capabilities = Capabilities(arch="x", cpus=1, memory_mib=1)
    return Device(id=device_id, name="n", labels={}, public_key=b"", capabilities=capabilities, enrolled=0.0)


class Held:
    """A store whose reads wait until they are let go."""

    def __init__(self, *known):
        self.known = set(known)
        self.reads = []
        self.go = asyncio.Event()
        self.broken = False

    async def devices_by_id(self, device_ids):
        self.reads.append(sorted(device_ids))
        await self.go.wait()
        if self.broken:
            raise DatabaseUnavailable(problem="away")
        return {device_id: a_device(device_id) for device_id in device_ids if device_id in self.known}


async def begun(store, reads):
    while len(store.reads) < reads:
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0)


def test_what_is_asked_during_a_read_is_answered_by_the_next_one_together():
    async def scene():
        store = Held("d1", "d2", "d3")
        lookup = DeviceLookup(store)
        first = asyncio.ensure_future(lookup.device("d1"))
        await begun(store, 1)
        later = [asyncio.ensure_future(lookup.device(name)) for name in ("d1", "d2", "d3", "d2")]
        store.go.set()
        assert [(await one).id for one in (first, *later)] == ["d1", "d1", "d2", "d3", "d2"]
        assert store.reads == [["d1"], ["d1", "d2", "d3"]]

    asyncio.run(scene())


def test_an_unknown_device_fails_alone():
    async def scene():
        store = Held("d1")
        store.go.set()
        lookup = DeviceLookup(store)
        good, bad = await asyncio.gather(lookup.device("d1"), lookup.device("d9"), return_exceptions=True)
        assert isinstance(good, Device)
        assert isinstance(bad, NotFound)

    asyncio.run(scene())


def test_a_failed_read_fails_its_askers_and_the_next_one_is_tried():
    async def scene():
        store = Held("d1")
        store.go.set()
        store.broken = True
        lookup = DeviceLookup(store)
        with pytest.raises(DatabaseUnavailable):
            await lookup.device("d1")
        store.broken = False
        assert (await lookup.device("d1")).id == "d1"

    asyncio.run(scene())


def test_an_asker_who_goes_away_takes_nobody_along():
    async def scene():
        store = Held("d1")
        lookup = DeviceLookup(store)
        gone = asyncio.ensure_future(lookup.device("d1"))
        await begun(store, 1)
        stays = asyncio.ensure_future(lookup.device("d1"))
        gone.cancel()
        store.go.set()
        assert (await stays).id == "d1"
        assert gone.cancelled() or gone.cancelling()

    asyncio.run(scene())
