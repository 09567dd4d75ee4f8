# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from contracts.store.values import CAPABILITIES, NOW, enrolled, new_device, report, result, token, workload
from skerry.errors import Conflict, EnrolmentRefused, NotFound
from skerry.hub.domain import Fleet
from skerry.wire.v1.report import WorkloadState

pytestmark = pytest.mark.anyio


async def test_enrolment_uses_the_token_up_and_keeps_what_the_device_said(store):
    await store.add_enrolment_token(token("t", labels={"site": "kiel"}))
    wanted = new_device("d1", labels={"site": "mine", "line": "4"})
    device = await store.enrol(wanted, token_hash=b"t", now=NOW + 1)
    assert device.labels == {"site": "kiel", "line": "4"}
    assert device.capabilities == CAPABILITIES
    assert device.public_key == b"k" * 32
    assert (device.report_n, device.desired_version, device.assignment_sequence) == (0, 0, 0)
    used = await store.enrolment_token(b"t")
    assert (used.used, used.device_id) == (NOW + 1, "d1")
    assert await store.device("d1") == device


@pytest.mark.parametrize(
    ("given", "now", "problem"),
    [(b"other", NOW, "unknown"), (b"t", NOW + 60, "expired")],
)
async def test_a_bad_token_enrols_nobody(store, given, now, problem):
    await store.add_enrolment_token(token("t"))
    with pytest.raises(EnrolmentRefused, match=problem):
        await store.enrol(new_device("d1"), token_hash=given, now=now)
    assert await store.devices() == ()
    assert (await store.enrolment_token(b"t")).used is None


async def test_a_taken_device_id_leaves_the_token_unused(store):
    await enrolled(store, "d1")
    await store.add_enrolment_token(token("t"))
    with pytest.raises(Conflict):
        await store.enrol(new_device("d1"), token_hash=b"t", now=NOW)
    assert (await store.enrolment_token(b"t")).used is None


async def test_of_enrolments_racing_for_one_token_exactly_one_wins(store):
    await store.add_enrolment_token(token("t"))
    tries = (store.enrol(new_device(f"d{n}"), token_hash=b"t", now=NOW) for n in range(5))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EnrolmentRefused) for outcome in outcomes) == 4
    assert len(await store.devices()) == 1


async def test_a_token_is_added_once_and_an_unknown_one_is_none(store):
    await store.add_enrolment_token(token("t"))
    with pytest.raises(Conflict):
        await store.add_enrolment_token(token("t"))
    assert await store.enrolment_token(b"nope") is None


async def test_pages_by_id_with_selector_and_name(store):
    await enrolled(store, "d1", "d3", "d5", site="kiel")
    await enrolled(store, "d2", "d4", site="bonn", ring="canary")
    first = await store.devices(limit=2)
    assert [device.id for device in first] == ["d1", "d2"]
    assert [device.id for device in await store.devices(limit=9, after="d2")] == ["d3", "d4", "d5"]
    assert [device.id for device in await store.devices(selector={"site": "kiel"})] == ["d1", "d3", "d5"]
    assert [device.id for device in await store.devices(selector={"site": "bonn", "ring": "canary"})] == ["d2", "d4"]
    assert await store.devices(selector={"site": "kiel", "ring": "canary"}) == ()
    assert [device.id for device in await store.devices(name="edge-d4")] == ["d4"]


async def test_many_devices_are_read_at_once_by_id(store):
    await enrolled(store, "d1", "d2", "d3")
    await store.delete_device("d3", now=NOW)
    found = await store.devices_by_id({"d1", "d2", "d3", "nobody"})
    assert found == {"d1": await store.device("d1"), "d2": await store.device("d2")}
    assert await store.devices_by_id(()) == {}


async def test_labels_are_patched_and_selected_by(store):
    await enrolled(store, "d1", site="kiel", ring="canary")
    device = await store.patch_labels("d1", {"ring": None, "site": "bonn", "new": "x"})
    assert device.labels == {"site": "bonn", "new": "x"}
    assert await store.devices(selector={"ring": "canary"}) == ()
    assert len(await store.devices(selector={"site": "bonn", "new": "x"})) == 1
    with pytest.raises(NotFound):
        await store.patch_labels("d9", {})


async def test_last_seen_never_goes_back(store):
    await enrolled(store, "d1", "d2")
    await store.touch({"d1": NOW + 5, "d2": NOW + 1, "unknown": NOW})
    await store.touch({"d1": NOW + 3, "d2": NOW + 2})
    await store.touch({})
    assert [device.last_seen for device in await store.devices()] == [NOW + 5, NOW + 2]
    assert await store.count_devices(seen_since=NOW + 3) == 1


async def test_revoked_devices_stay_listed_but_do_not_count(store):
    await enrolled(store, "d1", "d2")
    assert (await store.revoke("d1", now=NOW + 1)).revoked == NOW + 1
    assert (await store.revoke("d1", now=NOW + 9)).revoked == NOW + 1
    assert [device.id for device in await store.devices()] == ["d1", "d2"]
    assert await store.count_devices() == 1


async def test_a_deleted_device_is_gone_from_lists_but_its_record_stays(store):
    await enrolled(store, "d1", "d2", site="kiel")
    await store.add_reports("d1", [report(1, result("e1")), report(2, workload(WorkloadState.COMMITTED))], received=NOW)
    await store.delete_device("d1", now=NOW + 1)
    await store.delete_device("d1", now=NOW + 2)
    assert [device.id for device in await store.devices(selector={"site": "kiel"})] == ["d2"]
    assert await store.count_devices() == 1
    with pytest.raises(NotFound):
        await store.device("d1")
    assert (await store.device("d1", deleted=True)).deleted == NOW + 1
    assert len(await store.results("d1")) == 1
    assert len(await store.reports("d1")) == 2
    with pytest.raises(NotFound):
        await store.add_reports("d1", [report(3, result("e3"))], received=NOW)


async def test_fleets_are_created_and_replaced(store):
    await store.put_fleet(Fleet(name="b", selector={"site": "kiel"}))
    await store.put_fleet(Fleet(name="a", selector={}))
    await store.put_fleet(Fleet(name="b", selector={"site": "bonn"}))
    assert [fleet.name for fleet in await store.fleets()] == ["a", "b"]
    assert (await store.fleet("b")).selector == {"site": "bonn"}
    with pytest.raises(NotFound):
        await store.fleet("c")
