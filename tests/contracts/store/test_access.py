# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from contracts.store.values import NOW
from skerry.errors import Conflict, NotFound
from skerry.hub.domain import AuditRecord, User
from skerry.wire.v1.operator import Role

pytestmark = pytest.mark.anyio


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
