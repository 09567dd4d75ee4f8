# SPDX-License-Identifier: Apache-2.0
"""A hub that is killed over and over: `python hub_victim.py FOLDER KILLS SEED` prints what held as JSON.

The parent forks the hub (store, controller, and five devices with durable outboxes that talk to it), kills it with SIGKILL
after a random moment, looks at the database from outside, and forks it again, until it was killed KILLS times.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from contracts.store.values import NOW, bundle, bundle_record, enrolled
from skerry.effects.disk import DiskFiles
from skerry.hub.domain import DesiredWorkload
from skerry.hub.services.controller import Controller
from skerry.hub.services.rollouts import Rollouts
from skerry.hub.store.sql import SqlStore, open_store
from skerry.testing.clock import VirtualClock
from skerry.wire.v1.operator import RolloutSpec, RolloutStatus, StageSpec
from skerry.wire.v1.report import HistoryEntry, HistoryReport, Report, ResultReport, WorkloadReport, WorkloadState

DEVICES = ("d1", "d2", "d3", "d4", "d5")
LIMITS = (1, 2, 5)
STAGES = (StageSpec(name="one", count=1), StageSpec(name="two", count=2), StageSpec(name="rest"))


class DeviceState(Struct, kw_only=True):
    """What a device keeps on its own disk."""

    running: str
    seq: int = 0
    n: int = 0
    refused: list[str] = []
    outbox: list[Report] = []


class Device:
    """Runs whatever it is told at once. Every third version is broken on d3: it undoes that itself."""

    def __init__(self, device_id: str, folder: Path) -> None:
        self.id = device_id
        self._path = folder / f"{device_id}.json"
        kept = DiskFiles().read(self._path)
        first = DeviceState(running=bundle(1).digest)
        self._state = first if kept is None else msgspec.json.decode(kept, type=DeviceState)

    async def act(self, store: SqlStore) -> None:
        for target in (await store.desired(self.id)).workloads:
            digest = target.bundle.digest
            if digest != self._state.running and digest not in self._state.refused:
                self._switch(target)
        self._queue(ResultReport(workload="digits", event_id=self._event(), at=NOW, bundle="x", outputs={"y": [1]}))
        self._save()
        through = await store.add_reports(self.id, self._state.outbox, received=NOW)
        self._state.outbox = [report for report in self._state.outbox if report.seq > through]
        self._save()

    def sent(self) -> int:
        return self._state.seq

    def _event(self) -> str:
        return f"{self.id}-{self._state.seq + 1}"

    def _switch(self, target: DesiredWorkload) -> None:
        digest = target.bundle.digest
        broken = self.id == "d3" and target.bundle.release_seq % 3 == 0
        if broken:
            self._state.refused.append(digest)
        else:
            self._state.running = digest
        state = WorkloadState.UNDONE if broken else WorkloadState.COMMITTED
        said = WorkloadReport(
            workload="digits", digest=digest, state=state, rollout=target.rollout, running=self._state.running
        )
        self._queue(said)
        previous = f"h{self._state.n}" if self._state.n else ""
        self._state.n += 1
        n = self._state.n
        entry = HistoryEntry(
            n=n, at=NOW, kind=str(state), fields={"digest": digest}, previous=previous, hash=f"h{n}", signature=b"s"
        )
        self._queue(HistoryReport(entry=entry))

    def _queue(self, body: Any) -> None:
        self._state.seq += 1
        self._state.outbox.append(Report(seq=self._state.seq, at=NOW, body=body))

    def _save(self) -> None:
        DiskFiles().write(self._path, msgspec.json.encode(self._state))


class CountedEntropy:
    def token(self, size: int) -> bytes:
        return os.urandom(size)


async def prepare(url: str) -> None:
    store = await open_store(url)
    await enrolled(store, *DEVICES)
    for device_id in DEVICES:
        await store.set_desired(device_id, "digits", DesiredWorkload(workload="digits", bundle=bundle(1)))
    await store.close()


async def hub(url: str, folder: Path) -> None:
    """One life of the hub: rollout after rollout, until killed."""
    store = await open_store(url)
    clock = VirtualClock(NOW)
    controller, rollouts = Controller(store, clock), Rollouts(store, clock, CountedEntropy())
    devices = [Device(device_id, folder) for device_id in DEVICES]
    while True:
        if not await store.rollouts_to_plan():
            await next_rollout(store, rollouts)
        await controller.tick()
        for device in devices:
            await device.act(store)


async def settle(url: str, folder: Path) -> list[str]:
    """A last life nobody ends: the rollout under way comes to its end, and every outbox is empty."""
    store = await open_store(url)
    controller = Controller(store, VirtualClock(NOW))
    devices = [Device(device_id, folder) for device_id in DEVICES]
    for _ in range(100):
        if not await store.rollouts_to_plan():
            break
        await controller.tick()
        for device in devices:
            await device.act(store)
    problems = ["a rollout hangs"] if await store.rollouts_to_plan() else []
    for device in devices:
        await device.act(store)
        if (await store.device(device.id)).report_n != device.sent():
            problems.append(f"{device.id} lost reports")
    await store.close()
    return problems


async def next_rollout(store: SqlStore, rollouts: Rollouts) -> None:
    version = len(await store.rollouts(limit=100_000)) + 2
    await store.put_bundle(bundle_record(version))
    spec = RolloutSpec(workload="digits", bundle=f"digits:{version}.0", stages=STAGES)
    await rollouts.create(spec, actor="test")


class Look:
    """The record from outside, compared with the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: dict[str, list[tuple[Any, ...]]] = {}

    def problems(self) -> Iterator[str]:
        connection = sqlite3.connect(self._path)
        try:
            yield from self._appended(connection, "rollout_events", "rollout_id")
            yield from self._appended(connection, "history_entries", "device_id")
            yield from self._rollouts(connection)
            yield from self._reports(connection)
        finally:
            connection.close()

    def _appended(self, connection: sqlite3.Connection, table: str, key: str) -> Iterator[str]:
        rows = connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
        numbered = connection.execute(f"SELECT {key}, n FROM {table} ORDER BY {key}, n").fetchall()
        before = self._before.get(table, [])
        if rows[: len(before)] != before:
            yield f"{table} was rewritten"
        last: dict[str, int] = {}
        for owner, n in numbered:
            if n != last.get(owner, 0) + 1:
                yield f"{table} of {owner} jumps to {n}"
            last[owner] = n
        self._before[table] = rows

    def _rollouts(self, connection: sqlite3.Connection) -> Iterator[str]:
        counted = "SELECT rollout_id, stage, count(*) FROM rollout_members GROUP BY rollout_id, stage"
        for rollout_id, stage, count in connection.execute(counted):
            if count > LIMITS[stage]:
                yield f"stage {stage} of {rollout_id} has {count} devices"
        unproven = (
            "SELECT m.device_id FROM rollout_members m JOIN rollouts r ON r.id = m.rollout_id "
            "WHERE m.outcome = 'committed' AND NOT EXISTS (SELECT 1 FROM reports p WHERE p.device_id = m.device_id "
            "AND json_extract(p.report, '$.body.state') = 'committed' AND json_extract(p.report, '$.body.rollout') = r.id "
            "AND json_extract(p.report, '$.body.digest') = r.digest)"
        )
        for (device_id,) in connection.execute(unproven):
            yield f"{device_id} counts as committed without a report"
        astray = (
            "SELECT m.device_id, m.state FROM rollout_members m JOIN rollouts r ON r.id = m.rollout_id "
            "JOIN desired_workloads d ON d.device_id = m.device_id AND d.rollout = r.id "
            "WHERE json_extract(d.bundle, '$.digest') != CASE WHEN m.state IN ('undoing', 'undone') "
            "THEN json_extract(m.previous, '$.digest') ELSE r.digest END"
        )
        for device_id, state in connection.execute(astray):
            yield f"{device_id} is {state} but shall run something else"
        both = "SELECT count(*) FROM rollouts WHERE status IN ('running', 'paused', 'undoing')"
        if connection.execute(both).fetchone()[0] > 1:
            yield "two active rollouts"

    def _reports(self, connection: sqlite3.Connection) -> Iterator[str]:
        counts = "SELECT d.id, d.report_n, (SELECT count(*) FROM reports r WHERE r.device_id = d.id) FROM devices d"
        for device_id, through, count in connection.execute(counts):
            if through != count:
                yield f"{device_id} acknowledged {through} of {count} reports"
        lost = (
            "SELECT count(*) FROM reports p WHERE json_extract(p.report, '$.body.type') = 'result' AND NOT EXISTS "
            "(SELECT 1 FROM results r WHERE r.device_id = p.device_id "
            "AND r.event_id = json_extract(p.report, '$.body.event_id'))"
        )
        if connection.execute(lost).fetchone()[0]:
            yield "a reported result is missing"


def life(url: str, folder: Path, seconds: float) -> bool:
    """Fork a hub, kill it after `seconds`; whether it lived that long."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(hub(url, folder))
        finally:
            os._exit(1)
    threading.Event().wait(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    path = folder / "hub.db"
    url = f"sqlite:///{path}"
    asyncio.run(prepare(url))
    chance = random.Random(seed)
    look = Look(path)
    problems: list[str] = []
    for _ in range(kills):
        if not life(url, folder, chance.uniform(0.02, 0.4)):
            problems.append("the hub ended by itself")
        problems.extend(look.problems())
    problems.extend(asyncio.run(settle(url, folder)))
    problems.extend(look.problems())
    connection = sqlite3.connect(path)
    statuses = [row[0] for row in connection.execute("SELECT status FROM rollouts")]
    connection.close()
    return {
        "kills": kills,
        "problems": problems,
        "done": statuses.count(RolloutStatus.DONE),
        "undone": statuses.count(RolloutStatus.UNDONE),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
