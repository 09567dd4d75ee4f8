# SPDX-License-Identifier: Apache-2.0
"""What devices say, stored once each, with everything that follows from it in the same transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from skerry.hub.domain.access import AuditRecord
from skerry.hub.domain.devices import LastWords, LatestFigures, LatestTrial, WorkloadStatus
from skerry.hub.store.database import Database, Transaction
from skerry.hub.store.digestion import Digest, Place, Remark, doubts, following, remarks
from skerry.hub.store.documents import dump, load, plain
from skerry.hub.store.sql_devices import lock_device
from skerry.hub.store.tables import (
    assignments,
    device_workloads,
    devices,
    figures,
    history_entries,
    outboxes,
    reports,
    results,
    trials,
)
from skerry.wire.v1.device import LARGEST_SEQUENCE
from skerry.wire.v1.operator import StoredResult
from skerry.wire.v1.report import (
    FiguresReport,
    HistoryEntry,
    Report,
    ResultReport,
    TrialReport,
    WorkloadReport,
    WorkloadState,
)

Outputs = dict[str, list[float | int | str | bool]]


class SqlReports:
    _db: Database

    async def add_reports(
        self,
        device_id: str,
        reports: Sequence[Report],
        *,
        received: float,
        outbox: str = "",
        oldest: int = 0,
        rejected: Mapping[int, str] | None = None,
    ) -> int:
        async with self._db.write() as tx:
            row = await lock_device(tx, device_id)
            before = await _place(tx, row, outbox)
            taken = following(reports, max(before.through, oldest - 1))
            if not taken:
                return before.through
            after = before.after(taken)
            digest = Digest(taken, head_n=row.history_n, head_hash=row.history_hash, rejected=rejected)
            await self._keep(tx, row, taken, digest, received)
            moved = {"device_id": device_id, "outbox": outbox, "through": after.through, "lost": after.lost}
            await tx.execute(self._db.upsert(outboxes), moved)
            values = await _device_values(tx, row, digest, received)
            values["report_n"] = row.report_n + len(taken)
            if digest.doubts or after.lost > before.lost or before.others:
                values["doubts"] = dump(await _doubts(tx, row, digest, before))
            if digest.wants_another(issued=row.assignment_sequence):
                tx.wake((device_id,))
            await tx.execute(update(devices).where(devices.c.id == device_id).values(**values))
            found = remarks(before, after, digest, issued=row.assignment_sequence)
            await self._remark(tx, device_id, found, received)
            return after.through

    async def reports(self, device_id: str, *, limit: int = 100, after: int = 0) -> tuple[tuple[int, Report], ...]:
        query = select(reports.c.n, reports.c.report).where(reports.c.device_id == device_id, reports.c.n > after)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(reports.c.n).limit(limit))
            return tuple((row.n, load(row.report, Report)) for row in rows)

    async def history(self, device_id: str, *, limit: int = 1000, after: int = 0) -> tuple[HistoryEntry, ...]:
        query = select(history_entries.c.entry).where(
            history_entries.c.device_id == device_id, history_entries.c.n > after
        )
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(history_entries.c.n).limit(limit))
            return tuple(load(row.entry, HistoryEntry) for row in rows)

    async def results(
        self, device_id: str, *, limit: int = 100, after: int = 0
    ) -> tuple[tuple[int, StoredResult], ...]:
        query = select(results).where(results.c.device_id == device_id, results.c.n > after)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(results.c.n).limit(limit))
            return tuple((row.n, _result(row)) for row in rows)

    async def count_results(self) -> int:
        async with self._db.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(results))).scalar_one())

    async def last_words(self, device_ids: Collection[str]) -> dict[str, LastWords]:
        ids = sorted(device_ids)
        said = select(device_workloads).where(device_workloads.c.device_id.in_(ids))
        measured = select(figures).where(figures.c.device_id.in_(ids))
        statuses: dict[str, list[WorkloadStatus]] = {name: [] for name in ids}
        windows: dict[str, list[LatestFigures]] = {name: [] for name in ids}
        async with self._db.read() as connection:
            for row in await connection.execute(said.order_by(device_workloads.c.workload)):
                statuses[row.device_id].append(status_of(row))
            for row in await connection.execute(measured.order_by(figures.c.workload, figures.c.digest)):
                windows[row.device_id].append(figures_of(row))
        return {name: LastWords(statuses=tuple(statuses[name]), figures=tuple(windows[name])) for name in ids}

    async def _remark(self, tx: Transaction, device_id: str, found: Iterable[Remark], received: float) -> None:
        for remark in found:
            record = AuditRecord(
                at=received,
                actor=device_id,
                role="device",
                action=remark.action,
                subject=f"devices/{device_id}",
                outcome=remark.outcome,
            )
            await self._db.append_audit(tx, record)

    async def _keep(
        self, tx: Transaction, device: Row[Any], taken: Sequence[Report], digest: Digest, received: float
    ) -> None:
        mine = {"device_id": device.id, "received": received}
        rows = [{**mine, "n": n, "report": dump(report)} for n, report in enumerate(taken, start=device.report_n + 1)]
        await tx.execute(insert(reports), rows)
        if digest.workloads:
            rows = [{**mine, **_status_row(at, body)} for at, body in digest.workloads.values()]
            await tx.execute(self._db.upsert(device_workloads), rows)
        if digest.figures:
            rows = [{**mine, **_of_digest(at, body), "figures": dump(body)} for at, body in digest.figures.values()]
            await tx.execute(self._db.upsert(figures), rows)
        if digest.trials:
            rows = [{**mine, **_of_digest(at, body), "report": dump(body)} for at, body in digest.trials.values()]
            await tx.execute(self._db.upsert(trials), rows)
        if digest.results:
            rows = [{**mine, **_result_row(body)} for body in digest.results.values()]
            once = self._db.insert(results).on_conflict_do_nothing(index_elements=["device_id", "event_id"])
            await tx.execute(once, rows)
        if digest.entries:
            rows = [{**mine, "n": entry.n, "entry": dump(entry)} for entry in digest.entries]
            await tx.execute(insert(history_entries), rows)


async def _place(tx: Transaction, device: Row[Any], outbox: str) -> Place:
    query = select(outboxes).where(outboxes.c.device_id == device.id, outboxes.c.outbox == outbox)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return Place(fresh=True, others=device.report_n > 0)
    return Place(through=row.through, lost=row.lost)


async def _doubts(tx: Transaction, device: Row[Any], digest: Digest, before: Place) -> tuple[str, ...]:
    lost = select(func.sum(outboxes.c.lost)).where(outboxes.c.device_id == device.id)
    known = load(device.doubts, tuple[str, ...])
    return doubts(known, digest, before, lost=int((await tx.execute(lost)).scalar_one() or 0))


async def _device_values(tx: Transaction, row: Row[Any], digest: Digest, received: float) -> dict[str, Any]:
    values: dict[str, Any] = {"last_seen": max(row.last_seen or 0.0, received)}
    if digest.entries:
        values |= {"history_n": digest.head_n, "history_hash": digest.head_hash}
    if digest.device is not None:
        values |= {"capabilities": dump(digest.device.capabilities), "issues": dump(digest.device.issues)}
    if digest.wants_another(issued=row.assignment_sequence):
        # The hub lost its memory (an old backup) or a thief of its key was at work: it goes on above what the device follows.
        sequence = max(digest.applied_sequence, row.assignment_sequence)
        values |= {"desired_version": row.desired_version + 1, "assignment_sequence": sequence}
    elif digest.applied_sequence > row.applied_sequence:
        values |= await _in_force(tx, row, digest.applied_sequence)
    return values


async def _in_force(tx: Transaction, row: Row[Any], sequence: int) -> dict[str, Any]:
    query = select(assignments.c.desired_version).where(
        assignments.c.device_id == row.id, assignments.c.sequence == sequence
    )
    version = (await tx.execute(query)).scalar_one_or_none()
    return {"applied_sequence": sequence, **({} if version is None else {"applied_version": version})}


def status_of(row: Row[Any]) -> WorkloadStatus:
    return WorkloadStatus(
        device_id=row.device_id,
        workload=row.workload,
        digest=row.digest,
        state=WorkloadState(row.state),
        variant=row.variant,
        rollout=row.rollout,
        reason=row.reason,
        detail=row.detail,
        running=row.running,
        sequence=row.sequence,
        at=row.at,
        received=row.received,
    )


def figures_of(row: Row[Any]) -> LatestFigures:
    return LatestFigures(
        device_id=row.device_id, at=row.at, received=row.received, figures=load(row.figures, FiguresReport)
    )


def trial_of(row: Row[Any]) -> LatestTrial:
    return LatestTrial(device_id=row.device_id, at=row.at, received=row.received, report=load(row.report, TrialReport))


def _of_digest(at: float, body: FiguresReport | TrialReport) -> dict[str, Any]:
    return {"workload": plain(body.workload), "digest": plain(body.digest), "at": at}


def _status_row(at: float, body: WorkloadReport) -> dict[str, Any]:
    return {
        "workload": plain(body.workload),
        "digest": plain(body.digest),
        "state": str(body.state),
        "variant": plain(body.variant),
        "rollout": plain(body.rollout),
        "reason": plain(body.reason),
        "detail": plain(body.detail),
        "running": plain(body.running),
        "sequence": body.sequence if 0 <= body.sequence < LARGEST_SEQUENCE else 0,
        "at": at,
    }


def _result_row(body: ResultReport) -> dict[str, Any]:
    return {
        "event_id": plain(body.event_id),
        "workload": plain(body.workload),
        "at": body.at,
        "bundle": plain(body.bundle),
        "outputs": dump(body.outputs),
        "request_id": plain(body.request_id),
    }


def _result(row: Row[Any]) -> StoredResult:
    return StoredResult(
        device_id=row.device_id,
        workload=row.workload,
        event_id=row.event_id,
        at=row.at,
        received=row.received,
        bundle=row.bundle,
        outputs=load(row.outputs, Outputs),
        request_id=row.request_id,
    )
