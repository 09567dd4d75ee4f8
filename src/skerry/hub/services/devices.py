# SPDX-License-Identifier: Apache-2.0
"""Devices and fleets as people see them, and what people may change about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from skerry.effects import Clock
from skerry.hub.domain.access import Note
from skerry.hub.domain.devices import Device, Fleet, LastWords, LatestFigures, WorkloadStatus
from skerry.hub.services.labels import checked_labels, checked_name
from skerry.hub.services.models import Models
from skerry.hub.services.pages import page_of
from skerry.hub.store.interface import DeviceStore, ReportStore
from skerry.wire.v1.operator import (
    DevicePatch,
    DeviceView,
    DeviceWorkload,
    FleetSpec,
    FleetView,
    History,
    Page,
    StoredResult,
)
from skerry.wire.v1.report import HistoryEntry, Report

_HISTORY_PAGE = 1000


class _Store(DeviceStore, ReportStore, Protocol):
    pass


class Devices:
    def __init__(self, store: _Store, clock: Clock, models: Models) -> None:
        self._store = store
        self._clock = clock
        self._models = models

    async def page(self, *, selector: Mapping[str, str], limit: int, after: str) -> Page[DeviceView]:
        found = await self._store.devices(selector=selector, limit=limit, after=after)
        return page_of(await self._views(found), limit=limit, key=lambda view: view.id)

    async def one(self, device_id: str) -> DeviceView:
        return await self._view(await self._store.device(device_id))

    async def patch(self, device_id: str, patch: DevicePatch, *, note: Note) -> DeviceView:
        checked_labels(patch.labels)
        return await self._view(await self._store.patch_labels(device_id, patch.labels, note=note))

    async def revoke(self, device_id: str, *, note: Note) -> DeviceView:
        return await self._view(await self._store.revoke(device_id, now=self._clock.now(), note=note))

    async def delete(self, device_id: str, *, note: Note) -> None:
        await self._store.delete_device(device_id, now=self._clock.now(), note=note)

    async def history(self, device_id: str) -> History:
        """The whole chain, also of a deleted device: an auditor's question outlives the device."""
        device = await self._store.device(device_id, deleted=True)
        entries: list[HistoryEntry] = []
        while batch := await self._store.history(device_id, limit=_HISTORY_PAGE, after=entries[-1].n if entries else 0):
            entries.extend(batch)
        return History(device_id=device.id, name=device.name, public_key=device.public_key, entries=tuple(entries))

    async def reports(self, device_id: str, *, limit: int, after: int) -> Page[Report]:
        await self._store.device(device_id, deleted=True)
        rows = await self._store.reports(device_id, limit=limit, after=after)
        last = str(rows[-1][0]) if len(rows) == limit else ""
        return Page(items=tuple(report for _, report in rows), after=last)

    async def results(self, device_id: str, *, limit: int, after: int) -> Page[StoredResult]:
        await self._store.device(device_id, deleted=True)
        rows = await self._store.results(device_id, limit=limit, after=after)
        last = str(rows[-1][0]) if len(rows) == limit else ""
        return Page(items=tuple(result for _, result in rows), after=last)

    async def _view(self, device: Device) -> DeviceView:
        (view,) = await self._views((device,))
        return view

    async def _views(self, devices: Sequence[Device]) -> list[DeviceView]:
        said = await self._store.last_words([device.id for device in devices])
        return [await self._as_view(device, said[device.id]) for device in devices]

    async def _as_view(self, device: Device, said: LastWords) -> DeviceView:
        by_workload = {(latest.figures.workload, latest.figures.digest): latest for latest in said.figures}
        workloads = [await self._workload(status, by_workload) for status in said.statuses]
        return DeviceView(
            id=device.id,
            name=device.name,
            labels=device.labels,
            capabilities=device.capabilities,
            enrolled=device.enrolled,
            last_seen=device.last_seen,
            revoked=device.revoked is not None,
            workloads=tuple(workloads),
            public_key=device.public_key,
            issues=device.issues,
            assignment_sequence=device.assignment_sequence,
        )

    async def _workload(
        self, status: WorkloadStatus, figures: Mapping[tuple[str, str], LatestFigures]
    ) -> DeviceWorkload:
        latest = figures.get((status.workload, status.running or status.digest))
        measured = latest.figures if latest is not None else None
        return DeviceWorkload(
            workload=status.workload,
            bundle=await self._models.name_of(status.digest),
            digest=status.digest,
            state=status.state,
            variant=status.variant,
            reason=status.reason,
            detail=status.detail,
            running=status.running,
            at=status.at,
            latency_p50_ms=measured.latency_p50_ms if measured else None,
            latency_p95_ms=measured.latency_p95_ms if measured else None,
            error_rate=measured.errors / measured.requests if measured and measured.requests else None,
        )


class Fleets:
    def __init__(self, store: DeviceStore) -> None:
        self._store = store

    async def put(self, name: str, spec: FleetSpec, *, note: Note) -> FleetView:
        checked_name("fleet", name)
        checked_labels(spec.selector)
        fleet = Fleet(name=name, selector=spec.selector)
        await self._store.put_fleet(fleet, note=note)
        return await self._view(fleet)

    async def one(self, name: str) -> FleetView:
        return await self._view(await self._store.fleet(name))

    async def all(self) -> tuple[FleetView, ...]:
        return tuple([await self._view(fleet) for fleet in await self._store.fleets()])

    async def _view(self, fleet: Fleet) -> FleetView:
        devices = await self._store.count_devices(selector=fleet.selector)
        return FleetView(name=fleet.name, selector=fleet.selector, devices=devices)
