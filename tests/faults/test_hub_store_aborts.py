# SPDX-License-Identifier: Apache-2.0
"""The hub's connection dies before each single statement of each write in turn: all of it is there afterwards, or nothing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import event

from contracts.store.values import (
    NOW,
    assignment,
    bundle,
    bundle_record,
    enrolled,
    history,
    new_device,
    put,
    report,
    result,
    rollout,
    stages,
    token,
    workload,
)
from skerry.hub.domain import AuditRecord, CatalogueFile, DesiredWorkload, Fleet, Note
from skerry.hub.rollout.changes import changes_of
from skerry.hub.rollout.draft import NewEvent
from skerry.hub.rollout.planner import plan
from skerry.hub.store.sql import SqlStore, open_store
from skerry.hub.store.tables import metadata
from skerry.wire.v1.operator import RolloutStatus
from skerry.wire.v1.report import WorkloadState

pytestmark = pytest.mark.anyio

RECORD = AuditRecord(at=NOW, actor="a", role="admin", action="b", subject="c", outcome="ok")

Write = Callable[[], Awaitable[object]]


class Died(BaseException):
    """Not an Exception: nothing in the hub may catch it, as nothing catches a power cut."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def store(tmp_path, anyio_backend):
    opened = await open_store(f"sqlite:///{tmp_path / 'hub.db'}")
    yield opened
    await opened.close()


async def everything(store: SqlStore) -> dict[str, list[tuple[object, ...]]]:
    async with store._db.read() as connection:
        return {
            table.name: sorted((tuple(row) for row in await connection.execute(table.select())), key=repr)
            for table in metadata.sorted_tables
        }


async def at_every_statement(store: SqlStore, write: Write) -> int:
    """Die before statement 1, 2, 3 ... of `write` until it gets through; how many deaths that took."""
    before = await everything(store)
    engine = store._db._engine.sync_engine
    for deaths in range(200):
        left = deaths

        def die(*_: object) -> None:
            nonlocal left
            if left == 0:
                raise Died
            left -= 1

        event.listen(engine, "before_cursor_execute", die)
        try:
            await write()
        except Died:
            assert await everything_without(engine, die, store) == before, f"half a write before statement {deaths + 1}"
        else:
            event.remove(engine, "before_cursor_execute", die)
            assert await everything(store) != before
            return deaths
    raise AssertionError("the write never gets through")


async def everything_without(engine, listener, store):
    event.remove(engine, "before_cursor_execute", listener)
    return await everything(store)


async def test_each_single_write_is_whole_or_not_at_all(store):
    await enrolled(store, "d1")
    await store.put_bundle(bundle_record(1))
    await store.add_enrolment_token(token("t", labels={"a": "b"}))
    batch = [
        report(1, workload(WorkloadState.COMMITTED)),
        report(2, result("e1")),
        report(3, history(1)),
        report(4, result("e2")),
    ]
    target = DesiredWorkload(workload="digits", bundle=bundle(1))
    files = [CatalogueFile(name=name, version=1, data=b"x") for name in ("root", "targets", "snapshot", "timestamp")]
    writes: dict[str, Write] = {
        "enrol": lambda: store.enrol(new_device("d2", labels={"c": "d"}), token_hash=b"t", now=NOW),
        "reports": lambda: store.add_reports("d1", batch, received=NOW),
        "desired": lambda: store.set_desired("d1", "digits", target),
        "assignment": lambda: put(store, assignment("d1", 1)),
        "files": lambda: store.put_catalogue_files(files, expect={"root": 0}),
        "labels": lambda: store.patch_labels("d1", {"x": "y"}),
        "audit": lambda: store.add_audit(RECORD),
        "rollout": lambda: store.create_rollout(
            rollout(), stages(rollout()), [NewEvent(kind="created", detail="")], epoch=0
        ),
        "with its record": lambda: store.put_fleet(Fleet(name="north", selector={}), note=Note(record=RECORD)),
        "reports of another outbox, some lost": lambda: store.add_reports(
            "d1", [report(7, result("e7"))], received=NOW, outbox="b", oldest=7
        ),
        "revoke": lambda: store.revoke("d2", now=NOW),
        "delete": lambda: store.delete_device("d2", now=NOW),
    }
    deaths = {name: await at_every_statement(store, write) for name, write in writes.items()}
    assert all(count >= 2 for count in deaths.values()), deaths


async def test_each_step_of_a_rollout_there_and_back_is_whole_or_not_at_all(store):
    await store.put_bundle(bundle_record(2))
    await enrolled(store, "d1", "d2")
    for device_id in ("d1", "d2"):
        await store.set_desired(device_id, "digits", DesiredWorkload(workload="digits", bundle=bundle(1)))
    record = rollout()
    await store.create_rollout(record, stages(record), [NewEvent(kind="created", detail="")], epoch=0)
    said = {"d1": WorkloadState.COMMITTED, "d2": WorkloadState.UNDONE}
    deaths = 0
    for now in range(12):
        state = await store.rollout_state(record.id)
        actions = plan(state, NOW + now).actions
        if actions:
            changes = changes_of(state, actions, NOW + now)
            deaths += await at_every_statement(store, functools.partial(store.apply_rollout, changes))
        for member in state.members:
            told = member.assigned_at is not None and member.device_id in said
            if told:
                how = said.pop(member.device_id)
                running = bundle(2 if how is WorkloadState.COMMITTED else 1).digest
                body = workload(how, rollout=record.id, running=running)
                await store.add_reports(member.device_id, [report(1, body)], received=NOW + now)
            elif member.undo_at is not None and member.device_id == "d1":
                body = workload(WorkloadState.COMMITTED, version=1, rollout=record.id, running=bundle(1).digest)
                await store.add_reports("d1", [report(2, body)], received=NOW + now)
    assert (await store.rollout(record.id)).status is RolloutStatus.UNDONE
    for device_id in ("d1", "d2"):
        assert (await store.desired(device_id)).workloads[0].bundle == bundle(1)
    assert deaths > 50


async def test_a_cancelled_caller_neither_tears_a_write_nor_blocks_the_next(store):
    await enrolled(store, "d1")
    for attempt in range(40):
        batch = [report(n, result(f"e{n}")) for n in range(attempt * 5 + 1, attempt * 5 + 6)]
        task = asyncio.create_task(store.add_reports("d1", batch, received=NOW))
        await asyncio.wait([task], timeout=attempt * 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.wait_for(store.add_reports("d1", batch, received=NOW), 5) == attempt * 5 + 5
    assert await store.count_results() == 200


async def test_a_cancelled_long_poll_ends_at_once(store):
    await enrolled(store, "d1")
    task = asyncio.create_task(store.wait_for_change("d1", seen_version=0, timeout=60))
    await asyncio.wait([task], timeout=0.05)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    assert task.cancelled()
