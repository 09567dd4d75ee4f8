# SPDX-License-Identifier: Apache-2.0
"""Devices, enrolment tokens and fleets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update

from skerry.errors import EnrolmentRefused, NotFound
from skerry.hub.domain.access import Note
from skerry.hub.domain.devices import Device, EnrolmentTokenRecord, Fleet, NewDevice
from skerry.hub.store.database import Database, Transaction, unique
from skerry.hub.store.documents import dump, load, load_labels
from skerry.hub.store.tables import device_labels, devices, enrolment_tokens, fleets
from skerry.wire.v1.device import Capabilities


class SqlDevices:
    _db: Database

    async def add_enrolment_token(self, token: EnrolmentTokenRecord, *, note: Note | None = None) -> None:
        async with self._db.write(note) as tx:
            with unique("enrolment token", "given"):
                await tx.execute(
                    insert(enrolment_tokens).values(
                        token_hash=token.token_hash,
                        labels=dump(token.labels),
                        created=token.created,
                        created_by=token.created_by,
                        expires=token.expires,
                        used=token.used,
                        device_id=token.device_id,
                    )
                )

    async def enrolment_token(self, token_hash: bytes) -> EnrolmentTokenRecord | None:
        query = select(enrolment_tokens).where(enrolment_tokens.c.token_hash == token_hash)
        async with self._db.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return EnrolmentTokenRecord(
            token_hash=row.token_hash,
            labels=load_labels(row.labels),
            created=row.created,
            created_by=row.created_by,
            expires=row.expires,
            used=row.used,
            device_id=row.device_id,
        )

    async def enrol(self, device: NewDevice, *, token_hash: bytes, now: float, note: Note | None = None) -> Device:
        async with self._db.write(note) as tx:
            labels = {**device.labels, **await _use_token(tx, token_hash, device.id, now)}
            with unique("device", device.id):
                await tx.execute(insert(devices).values(**_new_row(device, labels)))
            await _write_labels(tx, device.id, labels)
            return await one_device(tx, device.id)

    async def device(self, device_id: str, *, deleted: bool = False) -> Device:
        async with self._db.read() as connection:
            return await one_device(connection, device_id, deleted=deleted)

    async def devices_by_id(self, device_ids: Collection[str]) -> dict[str, Device]:
        query = select(devices).where(devices.c.id.in_(device_ids), devices.c.deleted.is_(None))
        async with self._db.read() as connection:
            return {row.id: device_of(row) for row in await connection.execute(query)}

    async def devices(
        self, *, selector: Mapping[str, str] | None = None, limit: int = 100, after: str = "", name: str = ""
    ) -> tuple[Device, ...]:
        query = select(devices).where(devices.c.deleted.is_(None), devices.c.id > after)
        if name:
            query = query.where(devices.c.name == name)
        query = selected(query, selector or {}).order_by(devices.c.id).limit(limit)
        async with self._db.read() as connection:
            return tuple(device_of(row) for row in await connection.execute(query))

    async def count_devices(self, *, selector: Mapping[str, str] | None = None, seen_since: float | None = None) -> int:
        query = (
            select(func.count()).select_from(devices).where(devices.c.deleted.is_(None), devices.c.revoked.is_(None))
        )
        if seen_since is not None:
            query = query.where(devices.c.last_seen >= seen_since)
        async with self._db.read() as connection:
            return int((await connection.execute(selected(query, selector or {}))).scalar_one())

    async def device_ids(self, *, selector: Mapping[str, str]) -> frozenset[str]:
        query = select(devices.c.id).where(devices.c.deleted.is_(None), devices.c.revoked.is_(None))
        async with self._db.read() as connection:
            return frozenset(row.id for row in await connection.execute(selected(query, selector)))

    async def patch_labels(
        self, device_id: str, labels: Mapping[str, str | None], *, note: Note | None = None
    ) -> Device:
        async with self._db.write(note) as tx:
            await lock_device(tx, device_id)
            device = await one_device(tx, device_id)
            merged = {key: value for key, value in {**device.labels, **labels}.items() if value is not None}
            await tx.execute(update(devices).where(devices.c.id == device_id).values(labels=dump(merged)))
            await _write_labels(tx, device_id, merged)
            return await one_device(tx, device_id)

    async def touch(self, seen: Mapping[str, float]) -> None:
        if not seen:
            return
        newer = (devices.c.last_seen.is_(None)) | (devices.c.last_seen < bindparam("seen_at"))
        statement = update(devices).where(devices.c.id == bindparam("device"), newer)
        rows = [{"device": device_id, "seen_at": at} for device_id, at in sorted(seen.items())]
        async with self._db.write() as tx:
            await tx.execute(statement.values(last_seen=bindparam("seen_at")), rows)

    async def revoke(self, device_id: str, *, now: float, note: Note | None = None) -> Device:
        async with self._db.write(note) as tx:
            await lock_device(tx, device_id)
            fresh = (devices.c.id == device_id) & devices.c.revoked.is_(None)
            await tx.execute(update(devices).where(fresh).values(revoked=now))
            tx.wake((device_id,))
            return await one_device(tx, device_id)

    async def delete_device(self, device_id: str, *, now: float, note: Note | None = None) -> None:
        async with self._db.write(note) as tx:
            await lock_device(tx, device_id, deleted=True)
            alive = (devices.c.id == device_id) & devices.c.deleted.is_(None)
            await tx.execute(update(devices).where(alive).values(deleted=now))
            await tx.execute(delete(device_labels).where(device_labels.c.device_id == device_id))
            tx.wake((device_id,))

    async def put_fleet(self, fleet: Fleet, *, note: Note | None = None) -> None:
        async with self._db.write(note) as tx:
            await tx.execute(self._db.upsert(fleets), {"name": fleet.name, "selector": dump(fleet.selector)})

    async def fleet(self, name: str) -> Fleet:
        async with self._db.read() as connection:
            row = (await connection.execute(select(fleets).where(fleets.c.name == name))).one_or_none()
        if row is None:
            raise NotFound(kind="fleet", name=name)
        return Fleet(name=row.name, selector=load_labels(row.selector))

    async def fleets(self) -> tuple[Fleet, ...]:
        async with self._db.read() as connection:
            rows = await connection.execute(select(fleets).order_by(fleets.c.name))
            return tuple(Fleet(name=row.name, selector=load_labels(row.selector)) for row in rows)


def selected(query: Select[Any], selector: Mapping[str, str]) -> Select[Any]:
    """Only devices that carry every label of the selector."""
    for key, value in sorted(selector.items()):
        having = select(device_labels.c.device_id).where(device_labels.c.key == key, device_labels.c.value == value)
        query = query.where(devices.c.id.in_(having))
    return query


async def lock_device(tx: Transaction, device_id: str, *, deleted: bool = False) -> Row[Any]:
    """The row, held until the transaction ends. NotFound as in `one_device`."""
    row = (await tx.execute(select(devices).where(devices.c.id == device_id).with_for_update())).one_or_none()
    if row is None or (row.deleted is not None and not deleted):
        raise NotFound(kind="device", name=device_id)
    return row


async def one_device(executor: Any, device_id: str, *, deleted: bool = False) -> Device:  # noqa: ANN401 - a connection or a transaction
    row = (await executor.execute(select(devices).where(devices.c.id == device_id))).one_or_none()
    if row is None or (row.deleted is not None and not deleted):
        raise NotFound(kind="device", name=device_id)
    return device_of(row)


def device_of(row: Row[Any]) -> Device:
    return Device(
        id=row.id,
        name=row.name,
        labels=load_labels(row.labels),
        public_key=row.public_key,
        capabilities=load(row.capabilities, Capabilities),
        enrolled=row.enrolled,
        last_seen=row.last_seen,
        revoked=row.revoked,
        deleted=row.deleted,
        issues=(*load(row.issues, tuple[str, ...]), *load(row.doubts, tuple[str, ...])),
        report_n=row.report_n,
        desired_version=row.desired_version,
        assignment_sequence=row.assignment_sequence,
        applied_sequence=row.applied_sequence,
    )


def _new_row(device: NewDevice, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": device.id,
        "name": device.name,
        "labels": dump(labels),
        "public_key": device.public_key,
        "capabilities": dump(device.capabilities),
        "enrolled": device.enrolled,
        "issues": "[]",
        "doubts": "[]",
        "report_n": 0,
        "desired_version": 0,
        "assignment_sequence": 0,
        "applied_sequence": 0,
        "applied_version": 0,
        "history_n": 0,
        "history_hash": "",
    }


async def _use_token(tx: Transaction, token_hash: bytes, device_id: str, now: float) -> dict[str, str]:
    known = enrolment_tokens.c.token_hash == token_hash
    row = (await tx.execute(select(enrolment_tokens).where(known).with_for_update())).one_or_none()
    if row is None:
        raise EnrolmentRefused(problem="the token is unknown")
    if row.used is not None:
        raise EnrolmentRefused(problem="the token is used up")
    if now >= row.expires:
        raise EnrolmentRefused(problem="the token has expired")
    await tx.execute(update(enrolment_tokens).where(known).values(used=now, device_id=device_id))
    return load_labels(row.labels)


async def _write_labels(tx: Transaction, device_id: str, labels: Mapping[str, str]) -> None:
    await tx.execute(delete(device_labels).where(device_labels.c.device_id == device_id))
    if labels:
        rows = [{"device_id": device_id, "key": key, "value": value} for key, value in sorted(labels.items())]
        await tx.execute(insert(device_labels), rows)
