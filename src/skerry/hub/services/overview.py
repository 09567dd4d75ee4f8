# SPDX-License-Identifier: Apache-2.0
"""The hub at a glance: for people, for probes and for Prometheus."""

from __future__ import annotations

import math
from typing import Protocol

import skerry
from skerry.effects import Clock
from skerry.hub.domain.rollouts import ACTIVE
from skerry.hub.store.interface import CatalogueStore, DeviceStore, ReportStore, RolloutStore
from skerry.observe.exposition import Family
from skerry.wire.v1.operator import RolloutStatus, Summary

_MISSED_POLLS = 3
_SHORTEST_ONLINE = 120.0  # a long-poll alone may take half of this
_COUNTED = 1000
_COUNT_SECONDS = 5.0


class _Store(DeviceStore, ReportStore, RolloutStore, CatalogueStore, Protocol):
    async def ping(self) -> None: ...


class Overview:
    def __init__(self, store: _Store, clock: Clock, *, poll_seconds: float, demo_trust: bool) -> None:
        self._store = store
        self._clock = clock
        self._online_for = max(_SHORTEST_ONLINE, poll_seconds * _MISSED_POLLS)
        self._demo_trust = demo_trust
        self._counted: tuple[Family, ...] = ()
        self._counted_until = -math.inf

    async def summary(self) -> Summary:
        """A device is online when it was seen within three polls (at least two minutes)."""
        running = await self._store.rollouts(statuses=frozenset({RolloutStatus.RUNNING}), limit=_COUNTED)
        return Summary(
            version=skerry.__version__,
            devices=await self._store.count_devices(),
            online=await self._store.count_devices(seen_since=self._clock.now() - self._online_for),
            models=len({(record.ref.line, record.ref.model) for record in await self._store.bundles()}),
            rollouts_running=len(running),
            results=await self._store.count_results(),
            demo_trust=self._demo_trust,
        )

    async def ready(self) -> None:
        """Raises DatabaseUnavailable."""
        await self._store.ping()

    async def families(self) -> tuple[Family, ...]:
        """Counted at most every few seconds: anybody who reaches the hub may ask, and counting costs a database work."""
        now = self._clock.monotonic()
        if now >= self._counted_until:
            self._counted, self._counted_until = await self._count(), now + _COUNT_SECONDS
        return self._counted

    async def _count(self) -> tuple[Family, ...]:
        summary = await self.summary()
        active = await self._store.rollouts(statuses=ACTIVE, limit=_COUNTED)
        figures = (
            ("skerry_hub_devices", "Devices enrolled and not revoked.", summary.devices),
            ("skerry_hub_devices_online", "Devices seen within three polls.", summary.online),
            ("skerry_hub_models", "Models published.", summary.models),
            ("skerry_hub_rollouts_active", "Rollouts running, paused or undoing.", len(active)),
            ("skerry_hub_results", "Results received.", summary.results),
        )
        info = Family(
            name="skerry_hub_info",
            kind="gauge",
            help="Version of this hub.",
            samples=(({"version": summary.version}, 1.0),),
        )
        gauges = (
            Family(name=name, kind="gauge", help=text, samples=(({}, float(value)),)) for name, text, value in figures
        )
        return (info, *gauges)
