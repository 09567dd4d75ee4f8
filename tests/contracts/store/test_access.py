# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from contracts.store.values import NOW, enrolled, new_device, rollout, token
from skerry.errors import Conflict, HubError, NotFound
from skerry.hub.domain import AuditRecord, CatalogueFile, Fleet, Note, User
from skerry.wire.v1.operator import Role

pytestmark = pytest.mark.anyio

FILE = CatalogueFile(name="root.json", version=1, data=b"x")


def user(name: str) -> User:
    return User(name=name, role=Role.OPERATOR, token_hash=name.encode(), created=NOW)


async def test_users(store):
    await store.add_user(user("bert"))
    await store.add_user(user("anna"))
    assert await store.users() == (user("anna"), user("bert"))
    assert await store.user_by_token(b"bert") == user("bert")
    assert await store.user_by_token(b"nobody") is None
    with pytest.raises(Conflict):
        await store.add_user(user("anna"))
    await store.delete_user("anna")
    with pytest.raises(NotFound):
        await store.delete_user("anna")
    assert await store.user_by_token(b"anna") is None


async def test_a_user_can_be_replaced_whole(store):
    await store.add_user(user("anna"))
    other = User(name="anna", role=Role.ADMIN, token_hash=b"new", created=NOW + 1)
    await store.add_user(other, replace=True)
    assert await store.users() == (other,)
    assert await store.user_by_token(b"anna") is None


async def test_the_last_administrator_stays_also_when_two_remove_each_other_at_once(store):
    for name in ("anna", "bert"):
        await store.add_user(User(name=name, role=Role.ADMIN, token_hash=name.encode(), created=NOW))
    await store.add_user(user("carl"))
    said = await asyncio.gather(*(store.delete_user(name) for name in ("anna", "bert")), return_exceptions=True)
    assert [type(one) for one in said if one is not None] == [Conflict]
    assert sum(one.role is Role.ADMIN for one in await store.users()) == 1
    await store.delete_user("carl")


def note(subject: str) -> Note:
    record = AuditRecord(at=NOW, actor="anna", role="admin", action="test", subject=subject, outcome="ok")
    return Note(record=record)


async def test_a_note_is_recorded_with_what_it_is_about_or_not_at_all(store):
    await enrolled(store, "d1")
    await store.add_enrolment_token(token("t"))
    record = rollout()
    plan = [
        ("fleet", lambda given: store.put_fleet(Fleet(name="north", selector={}), note=given)),
        ("token", lambda given: store.add_enrolment_token(token("new"), note=given)),
        ("enrol", lambda given: store.enrol(new_device("d2"), token_hash=b"t", now=NOW, note=given)),
        ("labels", lambda given: store.patch_labels("d1", {"a": "b"}, note=given)),
        ("revoke", lambda given: store.revoke("d1", now=NOW, note=given)),
        ("delete", lambda given: store.delete_device("d1", now=NOW, note=given)),
        ("user", lambda given: store.add_user(user("bert"), note=given)),
        ("no user", lambda given: store.delete_user("bert", note=given)),
        ("rollout", lambda given: store.create_rollout(record, [], [], epoch=0, note=given)),
        ("files", lambda given: store.put_catalogue_files([FILE], expect={"root.json": 0}, note=given)),
    ]
    for name, write in plan:
        given = note(name)
        await write(given)
        assert given.written, name
    assert [entry.subject for entry in await store.audit()] == [name for name, _ in plan]
    refused = [
        lambda given: store.add_enrolment_token(token("new"), note=given),
        lambda given: store.enrol(new_device("d3"), token_hash=b"t", now=NOW, note=given),
        lambda given: store.patch_labels("d9", {}, note=given),
        lambda given: store.delete_user("bert", note=given),
        lambda given: store.create_rollout(record, [], [], epoch=0, note=given),
        lambda given: store.put_catalogue_files([FILE], expect={"root.json": 0}, note=given),
    ]
    for write in refused:
        given = note("refused")
        with pytest.raises(HubError):
            await write(given)
        assert not given.written
    assert len(await store.audit()) == len(plan)


async def test_audit_is_numbered_without_gaps_whoever_writes(store):
    def record(n: int) -> AuditRecord:
        return AuditRecord(at=NOW, actor="anna", role="admin", action="pause", subject=f"r-{n}", outcome="ok")

    entries = await asyncio.gather(*(store.add_audit(record(n)) for n in range(8)))
    assert sorted(entry.n for entry in entries) == list(range(1, 9))
    listed = await store.audit(limit=3, after=2)
    assert [entry.n for entry in listed] == [3, 4, 5]
    assert {entry.subject for entry in await store.audit()} == {f"r-{n}" for n in range(8)}


async def test_settings(store):
    assert await store.setting("key") is None
    await store.put_setting("key", b"1")
    await store.put_setting("key", b"2")
    assert await store.setting("key") == b"2"


async def test_replicas_settle_on_one_value(store):
    answers = await asyncio.gather(*(store.settle("key", bytes([n])) for n in range(6)))
    assert len(set(answers)) == 1
    assert await store.setting("key") == answers[0]


async def test_a_lease_has_one_holder_until_it_expires(store):
    lease = await store.acquire_lease("controller", "a", seconds=10, now=NOW)
    assert lease is not None
    assert (lease.expires, lease.term) == (NOW + 10, 1)
    assert await store.acquire_lease("controller", "b", seconds=10, now=NOW + 9) is None
    renewed = await store.acquire_lease("controller", "a", seconds=10, now=NOW + 9)
    assert renewed is not None
    assert (renewed.expires, renewed.term) == (NOW + 19, 1)
    taken = await store.acquire_lease("controller", "b", seconds=10, now=NOW + 19)
    assert taken is not None
    assert (taken.holder, taken.term) == ("b", 2)
    assert await store.acquire_lease("controller", "a", seconds=10, now=NOW + 20) is None


async def test_a_lease_is_given_back_by_its_holder_only(store):
    await store.acquire_lease("controller", "a", seconds=10, now=NOW)
    await store.release_lease("controller", "b")
    assert await store.acquire_lease("controller", "b", seconds=10, now=NOW) is None
    await store.release_lease("controller", "a")
    assert await store.acquire_lease("controller", "b", seconds=10, now=NOW) is not None


async def test_of_replicas_grabbing_one_lease_exactly_one_gets_it(store):
    tries = (store.acquire_lease("controller", f"h{n}", seconds=10, now=NOW) for n in range(6))
    assert sum(lease is not None for lease in await asyncio.gather(*tries)) == 1


async def test_ping(store):
    await store.ping()


async def test_a_name_is_used_once_whoever_tries_until_its_time_is_over(store):
    tries = await asyncio.gather(*(store.use_once("assertion/d1/j1", until=NOW + 10, now=NOW) for _ in range(6)))
    assert sorted(tries) == [False] * 5 + [True]
    assert await store.use_once("assertion/d2/j1", until=NOW + 10, now=NOW)
    assert not await store.use_once("assertion/d1/j1", until=NOW + 99, now=NOW + 10)
    assert await store.use_once("assertion/d1/j1", until=NOW + 99, now=NOW + 11)


async def test_a_lease_of_a_clock_that_was_years_ahead_is_not_waited_for(store):
    year = 365 * 86_400.0
    assert await store.acquire_lease("controller", "dead", seconds=15, now=NOW + year) is not None
    taken = await store.acquire_lease("controller", "b", seconds=15, now=NOW)
    assert taken is not None
    assert (taken.holder, taken.expires, taken.term) == ("b", NOW + 15, 2)
