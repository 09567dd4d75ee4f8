# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from contracts.store.values import (
    CAPABILITIES,
    NOW,
    assignment,
    bundle,
    enrolled,
    history,
    put,
    report,
    result,
    workload,
)
from skerry.errors import NotFound
from skerry.wire.v1.device import Capabilities
from skerry.wire.v1.report import DeviceReport, FiguresReport, WorkloadState

pytestmark = pytest.mark.anyio


def figures(p95: float, *, version: int = 2) -> FiguresReport:
    return FiguresReport(
        workload="digits",
        digest=bundle(version).digest,
        window_seconds=2.0,
        requests=10,
        errors=1,
        latency_p50_ms=1.0,
        latency_p95_ms=p95,
        latency_p99_ms=9.0,
    )


async def test_a_batch_is_stored_once_however_often_it_is_sent(store):
    await enrolled(store, "d1")
    batch = [report(n, result(f"e{n}")) for n in (1, 2, 3)]
    assert await store.add_reports("d1", batch, received=NOW) == 3
    assert await store.add_reports("d1", batch, received=NOW + 1) == 3
    assert await store.add_reports("d1", [*batch, report(4, result("e4"))], received=NOW + 2) == 4
    assert [kept for _, kept in await store.reports("d1")] == [*batch, report(4, result("e4"))]
    assert await store.count_results() == 4


async def test_nothing_behind_a_gap_is_stored_or_acknowledged(store):
    await enrolled(store, "d1")
    batch = [report(n, result(f"e{n}")) for n in (1, 2, 4, 5)]
    assert await store.add_reports("d1", batch, received=NOW) == 2
    assert await store.add_reports("d1", [report(5, result("e5"))], received=NOW) == 2
    assert await store.count_results() == 2
    assert await store.add_reports("d1", [report(n, result(f"e{n}")) for n in (3, 4, 5)], received=NOW) == 5
    assert await store.count_results() == 5


async def send(store, *seqs, outbox="a", oldest=0):
    batch = [report(n, result(f"{outbox}{n}")) for n in seqs]
    return await store.add_reports("d1", batch, received=NOW, outbox=outbox, oldest=oldest)


async def findings(store):
    audit = [(entry.actor, entry.action, entry.outcome.partition(":")[0]) for entry in await store.audit()]
    return (await store.device("d1")).issues, audit


async def test_another_outbox_starts_anew_and_is_remarked_on(store):
    await enrolled(store, "d1")
    assert await send(store, 1, 2, 3, outbox="a", oldest=1) == 3
    assert await findings(store) == ((), [])
    assert await send(store, 1, 2, outbox="b", oldest=1) == 2
    assert await send(store, 1, 2, 3, outbox="b", oldest=1) == 3
    assert await store.count_results() == 6
    assert await send(store, 4, outbox="a", oldest=4) == 4, "the old one may come back"
    (issue,), audit = await findings(store)
    assert issue.startswith("outbox-replaced")
    assert audit == [("d1", "report", "outbox-replaced")]


async def test_a_gap_before_what_a_device_still_holds_is_lost_and_remarked_on(store):
    await enrolled(store, "d1")
    assert await send(store, 1, 2, oldest=1) == 2
    assert await send(store, 7, 8, oldest=0) == 2, "the oldest it holds is unknown: the gap may still come"
    assert await send(store, 7, 8, oldest=5) == 2, "5 and 6 may still come"
    assert await send(store, 7, 8, oldest=7) == 8
    assert await send(store, 7, 8, 9, oldest=7) == 9
    assert await store.count_results() == 5
    issues, audit = await findings(store)
    assert issues == ("reports-lost: 4 never arrived",)
    assert audit == [("d1", "report", "lost")]
    assert await send(store, 11, oldest=11) == 11
    issues, audit = await findings(store)
    assert issues == ("reports-lost: 5 never arrived",)
    assert len(audit) == 1, "how many there are stands with the device; the log says when it began"


async def test_a_new_outbox_whose_first_reports_were_dropped_is_taken_from_where_it_begins(store):
    await enrolled(store, "d1")
    assert await send(store, 5, 6, oldest=5) == 6
    assert (await findings(store))[0] == ("reports-lost: 4 never arrived",)


async def test_a_hub_put_back_from_a_backup_goes_on_with_devices_that_know_more(store):
    await enrolled(store, "d1")
    await send(store, 1, 2, oldest=1)
    assert await send(store, 900, 901, oldest=900) == 901
    assert await store.count_results() == 4
    assert (await findings(store))[0] == ("reports-lost: 897 never arrived",)


async def test_a_device_that_names_no_outbox_is_one_with_a_single_outbox(store):
    await enrolled(store, "d1")
    assert await send(store, 1, 2, outbox="") == 2
    assert await send(store, 4, outbox="") == 2
    assert await send(store, 1, 2, 3, outbox="") == 3
    assert await findings(store) == ((), [])


async def test_reports_page_in_the_order_they_came_whatever_outbox_they_are_from(store):
    await enrolled(store, "d1")
    await send(store, 1, 2, 3, outbox="a")
    await send(store, 1, 2, outbox="b")
    first = await store.reports("d1", limit=4)
    rest = await store.reports("d1", limit=4, after=first[-1][0])
    assert [n for n, _ in (*first, *rest)] == [1, 2, 3, 4, 5]
    assert [kept.seq for _, kept in (*first, *rest)] == [1, 2, 3, 1, 2]
    assert (await store.device("d1")).report_n == 5


async def test_order_inside_a_batch_does_not_matter_and_an_empty_one_is_nothing(store):
    await enrolled(store, "d1")
    assert await store.add_reports("d1", [], received=NOW) == 0
    assert await store.add_reports("d1", [report(n, result(f"e{n}")) for n in (2, 1, 2)], received=NOW) == 2
    with pytest.raises(NotFound):
        await store.add_reports("d9", [], received=NOW)


async def test_the_same_batch_at_the_same_time_is_stored_once(store):
    await enrolled(store, "d1")
    batch = [report(n, result(f"e{n}")) for n in range(1, 6)]
    answers = await asyncio.gather(*(store.add_reports("d1", batch, received=NOW) for _ in range(6)))
    assert answers == [5] * 6
    assert await store.count_results() == 5


async def test_a_repeated_event_is_one_result_even_under_another_sequence(store):
    await enrolled(store, "d1", "d2")
    await store.add_reports("d1", [report(1, result("e1", 1)), report(2, result("e1", 2))], received=NOW)
    await store.add_reports("d1", [report(3, result("e1", 3))], received=NOW)
    await store.add_reports("d2", [report(1, result("e1", 4))], received=NOW)
    ((_, stored),) = await store.results("d1")
    assert stored.outputs == {"label": [1], "score": [0.5]}
    assert await store.count_results() == 2


async def test_results_page_by_row_number(store):
    await enrolled(store, "d1")
    await store.add_reports("d1", [report(n, result(f"e{n}")) for n in range(1, 6)], received=NOW)
    first = await store.results("d1", limit=2)
    rest = await store.results("d1", after=first[-1][0])
    assert [stored.event_id for _, stored in (*first, *rest)] == ["e1", "e2", "e3", "e4", "e5"]


async def test_the_last_word_on_a_workload_counts(store):
    await enrolled(store, "d1")
    batch = [
        report(1, workload(WorkloadState.FETCHING, rollout="r-1")),
        report(
            2, workload(WorkloadState.COMMITTED, rollout="r-1", running=bundle(2).digest, variant="int8"), at=NOW + 5
        ),
    ]
    await store.add_reports("d1", batch, received=NOW + 9)
    (status,) = (await store.last_words(["d1"]))["d1"].statuses
    assert (status.state, status.variant, status.running) == (WorkloadState.COMMITTED, "int8", bundle(2).digest)
    assert (status.at, status.received) == (NOW + 5, NOW + 9)
    await store.add_reports("d1", [report(3, workload(WorkloadState.FELL_BACK, reason="SKY-4003"))], received=NOW + 10)
    (status,) = (await store.last_words(["d1"]))["d1"].statuses
    assert (status.state, status.reason) == (WorkloadState.FELL_BACK, "SKY-4003")


async def test_figures_are_kept_per_digest(store):
    await enrolled(store, "d1")
    batch = [report(1, figures(5.0, version=1)), report(2, figures(6.0)), report(3, figures(7.0))]
    await store.add_reports("d1", batch, received=NOW)
    kept = (await store.last_words(["d1", "d2"]))["d1"].figures
    assert [(latest.figures.digest, latest.figures.latency_p95_ms) for latest in kept] == [
        (bundle(1).digest, 5.0),
        (bundle(2).digest, 7.0),
    ]


async def test_history_grows_entry_by_entry_exactly_as_sent(store):
    await enrolled(store, "d1")
    await store.add_reports("d1", [report(1, history(1)), report(2, history(2))], received=NOW)
    await store.add_reports("d1", [report(3, history(3))], received=NOW)
    assert await store.history("d1") == tuple(history(n).entry for n in (1, 2, 3))
    assert await store.history("d1", limit=1, after=1) == (history(2).entry,)
    await store.delete_device("d1", now=NOW)
    assert len(await store.history("d1")) == 3


@pytest.mark.parametrize(
    ("entry", "doubt"),
    [
        (history(2, previous="other"), "history-fork at 2"),
        (history(1), "history-fork at 1"),
        (history(3), "history-gap at 3 after 1"),
    ],
)
async def test_history_that_does_not_fit_is_left_out_and_noted(store, entry, doubt):
    await enrolled(store, "d1")
    assert await store.add_reports("d1", [report(1, history(1)), report(2, entry)], received=NOW) == 2
    assert await store.history("d1") == (history(1).entry,)
    assert (await store.device("d1")).issues == (doubt,)
    assert await store.add_reports("d1", [report(3, history(2))], received=NOW) == 3
    assert len(await store.history("d1")) == 2


async def test_history_the_caller_rejects_is_kept_as_a_report_and_noted_once(store):
    await enrolled(store, "d1")
    batch = [report(1, history(1)), report(2, history(2)), report(3, history(3))]
    for _ in range(2):
        assert await store.add_reports("d1", batch, received=NOW, rejected={2: "entry 2: bad-signature"}) == 3
    assert await store.history("d1") == (history(1).entry,)
    assert (await store.device("d1")).issues == ("entry 2: bad-signature", "history-gap at 3 after 1")
    assert len(await store.reports("d1")) == 3
    assert [entry.outcome for entry in await store.audit()] == ["tampered: entry 2: bad-signature"]


@pytest.mark.parametrize("table", ["history_entries", "audit", "rollout_events"])
@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_the_database_itself_refuses_to_rewrite_the_record(store, table, verb):
    from contracts.store.values import rollout
    from skerry.hub.domain import AuditRecord
    from skerry.hub.rollout.draft import NewEvent

    await enrolled(store, "d1")
    await store.add_reports("d1", [report(1, history(1))], received=NOW)
    await store.create_rollout(rollout(), [], [NewEvent(kind="created", detail="")], epoch=0)
    await store.add_audit(AuditRecord(at=NOW, actor="a", role="admin", action="b", subject="c", outcome="ok"))
    statement = f"UPDATE {table} SET n = n" if verb == "update" else f"DELETE FROM {table}"
    with pytest.raises(DBAPIError, match="append-only"):
        async with store._db._engine.begin() as connection:
            await connection.execute(text(statement))


async def test_device_reports_update_capabilities_issues_and_what_is_in_force(store):
    await enrolled(store, "d1")
    await put(store, assignment("d1", 1, desired_version=3))
    grown = Capabilities(arch="x86_64", cpus=8, memory_mib=4096)
    body = DeviceReport(capabilities=grown, issues=("disk low",), sequence=1)
    await store.add_reports("d1", [report(1, body)], received=NOW + 3)
    device = await store.device("d1")
    assert (device.capabilities, device.issues, device.applied_sequence) == (grown, ("disk low",), 1)
    assert device.last_seen == NOW + 3
    older = DeviceReport(capabilities=CAPABILITIES, sequence=0)
    await store.add_reports("d1", [report(2, older)], received=NOW + 1)
    device = await store.device("d1")
    assert (device.capabilities, device.issues, device.applied_sequence) == (CAPABILITIES, (), 1)
    assert device.last_seen == NOW + 3


async def test_strange_text_and_numbers_of_one_device_jam_nothing(store):
    await enrolled(store, "d1")
    strange = workload(WorkloadState.FETCHING, detail="a\0b \u2028 \N{SNOWMAN}", sequence=2**80)
    assert await store.add_reports("d1", [report(1, strange), report(2, result("e\0"))], received=NOW) == 2
    (status,) = (await store.last_words(["d1"]))["d1"].statuses
    assert status.detail.startswith("a\N{REPLACEMENT CHARACTER}b")
    assert (await store.device("d1")).applied_sequence == 0


async def test_what_many_devices_last_said_is_read_together(store):
    await enrolled(store, "d1", "d2", "d3")
    for device_id in ("d1", "d2"):
        said = [report(1, workload(WorkloadState.COMMITTED)), report(2, figures(5.0))]
        await store.add_reports(device_id, said, received=NOW)
    words = await store.last_words(["d1", "d2", "d3", "d9"])
    assert {name: (len(one.statuses), len(one.figures)) for name, one in words.items()} == {
        "d1": (1, 1),
        "d2": (1, 1),
        "d3": (0, 0),
        "d9": (0, 0),
    }
    assert words["d2"].statuses[0].device_id == words["d2"].figures[0].device_id == "d2"
    assert await store.last_words([]) == {}
