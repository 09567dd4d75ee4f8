# SPDX-License-Identifier: Apache-2.0
"""What devices say: taken in once, however often it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from skerry.effects import Clock
from skerry.errors import BadRequest
from skerry.hub.domain.devices import Device
from skerry.hub.store.interface import ReportStore
from skerry.trust.chain import check_entry
from skerry.wire.v1.device import LARGEST_SEQUENCE
from skerry.wire.v1.report import HistoryEntry, HistoryReport, Report, ReportAck, ReportBatch

MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_REPORTS = 10_000

_OUTBOX = re.compile(r"[A-Za-z0-9._-]{0,64}")


class Reports:
    def __init__(self, store: ReportStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def accept(self, device: Device, batch: ReportBatch) -> ReportAck:
        """Store what is new. Raises BadRequest for a batch no agent would send.

        A history entry the device's key did not sign, or whose content has another hash, is not refused: a refusal would
        hold up everything behind it in the device's outbox for ever. It is kept as evidence, stays out of the
        verified history, marks the device and stands in the audit log.
        """
        problem = batch_problem(batch)
        if problem:
            raise BadRequest(problem=problem)
        through = await self._store.add_reports(
            device.id,
            batch.reports,
            received=self._clock.now(),
            outbox=batch.outbox,
            oldest=batch.oldest,
            rejected=broken_entries(device, batch.reports),
        )
        return ReportAck(through=through)


def batch_problem(batch: ReportBatch) -> str:
    """What no agent would send; empty when nothing is wrong."""
    numbers = [report.seq for report in batch.reports]
    if len(numbers) > MAX_REPORTS or not all(0 < seq < LARGEST_SEQUENCE for seq in numbers):
        return f"reports: at most {MAX_REPORTS}, numbered from 1"
    if not _OUTBOX.fullmatch(batch.outbox):
        return "outbox: up to 64 of A-Z a-z 0-9 . _ -"
    if batch.oldest < 0 or (numbers and batch.oldest > min(numbers)):
        return "oldest: not above the lowest report of the batch"
    return ""


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
