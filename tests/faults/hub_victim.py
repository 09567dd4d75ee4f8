# SPDX-License-Identifier: Apache-2.0
"""Hubs that are killed over and over: `python hub_victim.py FOLDER KILLS SEED [POSTGRESQL_URL]` prints what held as JSON.

The parent forks a hub on SQLite, or two replicas on PostgreSQL (store, controller, and five devices with durable outboxes
that talk to it, or to one of the two), kills one with SIGKILL after a random moment, looks at the database from outside,
and forks it again, until KILLS were killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import create_engine

from contracts.store.values import NOW, bundle, bundle_record, enrolled
from skerry.effects.disk import DiskFiles
from skerry.errors import RolloutRefused, StaleVersion
from skerry.hub.domain import DesiredWorkload
from skerry.hub.services.controller import Controller
from skerry.hub.services.rollouts import Rollouts
from skerry.hub.store.database import parse_url
from skerry.hub.store.sql import SqlStore, open_store
from skerry.hub.store.tables import metadata
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
    confirmed: str = ""  # the rollout that last asked for what runs
    refused: list[str] = []
    outbox: list[Report] = []


class Device:
    """Runs whatever it is told at once, and says so also when it ran that already. Every third version is broken on d3: it undoes that itself."""

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
            elif digest == self._state.running and target.rollout != self._state.confirmed:
                self._say(target, WorkloadState.COMMITTED)
            self._state.confirmed = target.rollout
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
        self._say(target, state)
        previous = f"h{self._state.n}" if self._state.n else ""
        self._state.n += 1
        n = self._state.n
        entry = HistoryEntry(
            n=n, at=NOW, kind=str(state), fields={"digest": digest}, previous=previous, hash=f"h{n}", signature=b"s"
        )
        self._queue(HistoryReport(entry=entry))

    def _say(self, target: DesiredWorkload, state: WorkloadState) -> None:
        said = WorkloadReport(
            workload="digits",
            digest=target.bundle.digest,
            state=state,
            rollout=target.rollout,
            running=self._state.running,
        )
        self._queue(said)

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


async def hub(url: str, folder: Path, served: Sequence[str]) -> None:
    """One life of a hub: rollout after rollout, until killed. Another one may do the same; `served` devices talk to this."""
    store = await open_store(url)
    clock = VirtualClock(NOW)
    controller, rollouts = Controller(store, clock), Rollouts(store, clock, CountedEntropy())
    devices = [Device(device_id, folder) for device_id in served]
    while True:
        if not await store.rollouts_to_plan():
            with contextlib.suppress(RolloutRefused, StaleVersion):  # the other one began the next
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


Row = dict[str, Any]


class Look:
    """The record from outside, compared with the last look."""

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._before: dict[str, set[tuple[Any, ...]]] = {}

    def problems(self) -> Iterator[str]:
        postgres = self._url.get_backend_name() == "postgresql"
        engine = create_engine(
            self._url if postgres else self._url.set(drivername="sqlite"),
            isolation_level="REPEATABLE READ" if postgres else "SERIALIZABLE",
        )
        with engine.begin() as connection:
            seen = {
                table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
                for table in metadata.sorted_tables
            }
        engine.dispose()
        yield from self._appended(seen, "rollout_events", "rollout_id")
        yield from self._appended(seen, "history_entries", "device_id")
        yield from rollout_problems(seen)
        yield from report_problems(seen)

    def _appended(self, seen: dict[str, list[Row]], table: str, key: str) -> Iterator[str]:
        rows = {tuple(row.values()) for row in seen[table]}
        if not self._before.get(table, set()) <= rows:
            yield f"{table} was rewritten"
        self._before[table] = rows
        numbers: dict[str, list[int]] = {}
        for row in seen[table]:
            numbers.setdefault(row[key], []).append(row["n"])
        for owner, found in numbers.items():
            if sorted(found) != list(range(1, len(found) + 1)):
                yield f"{table} of {owner} has gaps"


def rollout_problems(seen: dict[str, list[Row]]) -> Iterator[str]:
    rollouts = {row["id"]: row for row in seen["rollouts"]}
    desired = {row["device_id"]: row for row in seen["desired_workloads"]}
    said = {proof(row["device_id"], json.loads(row["report"])["body"]) for row in seen["reports"]}
    for (rollout_id, stage), count in Counter(
        (row["rollout_id"], row["stage"]) for row in seen["rollout_members"]
    ).items():
        if count > LIMITS[stage]:
            yield f"stage {stage} of {rollout_id} has {count} devices"
    for member in seen["rollout_members"]:
        device_id, rollout = member["device_id"], rollouts[member["rollout_id"]]
        committed = (device_id, "committed", rollout["id"], rollout["digest"])
        if member["outcome"] == "committed" and committed not in said:
            yield f"{device_id} counts as committed without a report"
        shall = desired.get(device_id)
        back = member["state"] in {"undoing", "undone"}
        wanted = json.loads(member["previous"])["digest"] if back else rollout["digest"]
        if shall and shall["rollout"] == rollout["id"] and json.loads(shall["bundle"])["digest"] != wanted:
            yield f"{device_id} is {member['state']} but shall run something else"
    if sum(row["status"] in {"running", "paused", "undoing"} for row in rollouts.values()) > 1:
        yield "two active rollouts"


def proof(device_id: str, body: dict[str, Any]) -> tuple[str, str, str, str]:
    return device_id, body.get("state", ""), body.get("rollout", ""), body.get("digest", "")


def report_problems(seen: dict[str, list[Row]]) -> Iterator[str]:
    stored = Counter(row["device_id"] for row in seen["reports"])
    through = {row["device_id"]: row["through"] for row in seen["outboxes"]}
    for device in seen["devices"]:
        if not device["report_n"] == stored[device["id"]] == through.get(device["id"], 0):
            yield f"{device['id']} acknowledged {through.get(device['id'])} of {stored[device['id']]} reports"
    events = [json.loads(row["report"])["body"].get("event_id") for row in seen["reports"]]
    if sorted(filter(None, events)) != sorted(row["event_id"] for row in seen["results"]):
        yield "reported results are not those stored"


def begin(url: str, folder: Path, served: Sequence[str]) -> int:
    """Fork a hub; its process id."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(hub(url, folder, served))
        finally:
            os._exit(1)
    return child


def end(child: int) -> bool:
    """Kill it; whether it lived until then."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(folder: Path, kills: int, seed: int, database: str = "") -> dict[str, Any]:
    url = database or f"sqlite:///{folder / 'hub.db'}"
    shares = [DEVICES[0::2], DEVICES[1::2]] if database else [DEVICES]
    asyncio.run(prepare(url))
    chance = random.Random(seed)
    look = Look(url)
    problems: list[str] = []
    hubs = [begin(url, folder, share) for share in shares]
    for _ in range(kills):
        threading.Event().wait(chance.uniform(0.02, 0.4))
        which = chance.randrange(len(hubs))
        if not end(hubs[which]):
            problems.append("a hub ended by itself")
        problems.extend(look.problems())
        hubs[which] = begin(url, folder, shares[which])
    for child in hubs:
        end(child)
    problems.extend(asyncio.run(settle(url, folder)))
    problems.extend(look.problems())
    statuses = asyncio.run(ended(url))
    return {
        "kills": kills,
        "problems": problems,
        "done": statuses.count(RolloutStatus.DONE),
        "undone": statuses.count(RolloutStatus.UNDONE),
    }


async def ended(url: str) -> list[RolloutStatus]:
    store = await open_store(url)
    statuses = [record.status for record in await store.rollouts(limit=100_000)]
    await store.close()
    return statuses


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
