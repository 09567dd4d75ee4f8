# SPDX-License-Identifier: Apache-2.0
"""What devices say: taken in once, however often it is sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

import msgspec

from skerry.effects import Clock
from skerry.errors import BadRequest
from skerry.hub.domain.access import AuditRecord
from skerry.hub.domain.devices import Device
from skerry.hub.store.interface import AccessStore, ReportStore
from skerry.trust.chain import check_entry
from skerry.wire.v1.report import HistoryEntry, HistoryReport, Report, ReportAck, ReportBatch

log = logging.getLogger(__name__)

MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_REPORTS = 10_000


class _Store(ReportStore, AccessStore, Protocol):
    pass


class Reports:
    def __init__(self, store: _Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def accept(self, device: Device, batch: ReportBatch) -> ReportAck:
        """Store what is new. Raises BadRequest for a batch no agent would send.

        A history entry the device's key did not sign, or whose content has another hash, is not refused: a refusal would
        hold up everything behind it in the device's outbox for ever. It is kept as evidence, stays out of the
        verified history, marks the device and stands in the audit log.
        """
        reports = sorted(batch.reports, key=lambda report: report.seq)
        if len(reports) > MAX_REPORTS or any(report.seq < 1 for report in reports):
            raise BadRequest(problem=f"reports: at most {MAX_REPORTS}, numbered from 1")
        now = self._clock.now()
        rejected = broken_entries(device, reports)
        through = await self._store.add_reports(device.id, reports, received=now, rejected=rejected)
        fresh = {seq: problem for seq, problem in rejected.items() if device.through < seq <= through}
        if fresh:
            await self._note_tampering(device, fresh, now)
        return ReportAck(through=through)

    async def _note_tampering(self, device: Device, rejected: dict[int, str], now: float) -> None:
        first = min(rejected)
        log.warning("history of device %s is not what it signed: %s", device.id, rejected[first])
        await self._store.add_audit(
            AuditRecord(
                at=now,
                actor=device.id,
                role="device",
                action="report history",
                subject=f"devices/{device.id}/history",
                outcome=f"tampered: {rejected[first]}",
            )
        )


def broken_entries(device: Device, reports: Iterable[Report]) -> dict[int, str]:
    """Report sequence -> what is wrong, for entries that are not what the device signed. Links are the store's to check."""
    broken: dict[int, str] = {}
    for report in reports:
        if not isinstance(report.body, HistoryReport):
            continue
        entry = report.body.entry
        problem = check_entry(_fitting(entry), entry, device_id=device.id, public_key=device.public_key)
        if problem is not None:
            broken[report.seq] = f"history entry {entry.n}: {problem.value}"
    return broken


def _fitting(entry: HistoryEntry) -> HistoryEntry | None:
    """A predecessor the entry links to by definition, so that only its own hash and signature are judged."""
    if entry.n <= 1:
        return None
    return msgspec.structs.replace(entry, n=entry.n - 1, hash=entry.previous)
