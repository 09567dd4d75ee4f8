# SPDX-License-Identifier: Apache-2.0
"""Users, audit, settings and leases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from skerry.errors import Conflict, NotFound
from skerry.hub.domain.access import AuditRecord, Lease, Note, User
from skerry.hub.store.database import Database, unique
from skerry.hub.store.tables import audit, leases, settings, used_names, users
from skerry.wire.v1.operator import AuditEntry, Role


class SqlAccess:
    _db: Database

    async def add_user(self, user: User, *, replace: bool = False, note: Note | None = None) -> None:
        row = {"name": user.name, "role": str(user.role), "token_hash": user.token_hash, "created": user.created}
        async with self._db.write(note) as tx:
            with unique("user", user.name):
                await tx.execute(self._db.upsert(users) if replace else insert(users), row)

    async def user_by_token(self, token_hash: bytes) -> User | None:
        async with self._db.read() as connection:
            row = (await connection.execute(select(users).where(users.c.token_hash == token_hash))).one_or_none()
        return None if row is None else _user(row)

    async def users(self) -> tuple[User, ...]:
        async with self._db.read() as connection:
            return tuple(_user(row) for row in await connection.execute(select(users).order_by(users.c.name)))

    async def delete_user(self, name: str, *, note: Note | None = None) -> None:
        administrators = select(users.c.name).where(users.c.role == Role.ADMIN).order_by(users.c.name)
        async with self._db.write(note) as tx:
            left = {row.name for row in await tx.execute(administrators.with_for_update())}
            if left == {name}:
                raise Conflict(kind="user", name=name, problem="is the last administrator")
            gone = await tx.execute(delete(users).where(users.c.name == name))
            if gone.rowcount != 1:
                raise NotFound(kind="user", name=name)

    async def add_audit(self, record: AuditRecord) -> AuditEntry:
        async with self._db.write() as tx:
            return await self._db.append_audit(tx, record)

    async def audit(self, *, limit: int = 100, after: int = 0) -> tuple[AuditEntry, ...]:
        query = select(audit).where(audit.c.n > after).order_by(audit.c.n).limit(limit)
        async with self._db.read() as connection:
            return tuple(_audit(row) for row in await connection.execute(query))

    async def use_once(self, name: str, *, until: float, now: float) -> bool:
        async with self._db.write() as tx:
            await tx.execute(delete(used_names).where(used_names.c.until < now))
            once = self._db.insert(used_names).values(name=name, until=until).on_conflict_do_nothing()
            used = await tx.execute(once.returning(used_names.c.name))
            return used.one_or_none() is not None

    async def setting(self, name: str) -> bytes | None:
        async with self._db.read() as connection:
            query = select(settings.c.value).where(settings.c.name == name)
            return (await connection.execute(query)).scalar_one_or_none()

    async def put_setting(self, name: str, value: bytes) -> None:
        async with self._db.write() as tx:
            await tx.execute(self._db.upsert(settings), {"name": name, "value": value})

    async def settle(self, name: str, value: bytes) -> bytes:
        async with self._db.write() as tx:
            once = self._db.insert(settings).values(name=name, value=value).on_conflict_do_nothing()
            await tx.execute(once)
            stored: bytes = (await tx.execute(select(settings.c.value).where(settings.c.name == name))).scalar_one()
            return stored


_LONGEST_LEASE = 3600.0
"""What is held longer was taken by a clock that has been set back since, perhaps by a hub that is no more."""


class SqlLeases:
    _db: Database

    async def acquire_lease(self, name: str, holder: str, *, seconds: float, now: float) -> Lease | None:
        """Compare-and-set, which both databases know: of two replicas exactly one finds the lease as it was."""
        async with self._db.write() as tx:
            seeded = self._db.insert(leases).values(name=name, holder="", expires=0.0, term=0)
            await tx.execute(seeded.on_conflict_do_nothing())
            row = (await tx.execute(select(leases).where(leases.c.name == name).with_for_update())).one()
            if row.holder not in {"", holder} and now < row.expires <= now + _LONGEST_LEASE:
                return None
            term = row.term if row.holder == holder else row.term + 1
            lease = Lease(name=name, holder=holder, expires=now + seconds, term=term)
            taken = update(leases).where(leases.c.name == name)
            await tx.execute(taken.values(holder=holder, expires=lease.expires, term=term))
            return lease

    async def release_lease(self, name: str, holder: str) -> None:
        mine = (leases.c.name == name) & (leases.c.holder == holder)
        async with self._db.write() as tx:
            await tx.execute(update(leases).where(mine).values(holder="", expires=0.0))


def _user(row: Row[Any]) -> User:
    return User(name=row.name, role=Role(row.role), token_hash=row.token_hash, created=row.created)


def _audit(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        n=row.n,
        at=row.at,
        actor=row.actor,
        role=row.role,
        action=row.action,
        subject=row.subject,
        outcome=row.outcome,
    )
