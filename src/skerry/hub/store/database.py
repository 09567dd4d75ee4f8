# SPDX-License-Identifier: Apache-2.0
"""One database, two dialects: transactions, upserts, errors and wake-ups. Nothing above this file knows which one it is.

SQLite: WAL, synchronous=FULL (a commit survives power loss), writers begin IMMEDIATE and queue inside the process.
PostgreSQL: readers see one snapshot (REPEATABLE READ), writers READ COMMITTED with row locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from skerry.errors import BadRequest, ConfigError, Conflict, DatabaseUnavailable
from skerry.hub.domain.access import AuditRecord, Note
from skerry.hub.store.tables import audit, counters
from skerry.hub.store.wakeups import CHANNEL, Listener, Wakeups
from skerry.wire.v1.operator import AuditEntry

_AUDIT = "audit"
_BUSY_SECONDS = 15
_QUEUE_SECONDS = 30  # a writer takes some milliseconds; a device waits a minute for its answer
_WRITE = "skerry_write"
_NOTIFY = text("SELECT pg_notify(:channel, device_id) FROM unnest(CAST(:ids AS text[])) AS device_id")


class Transaction:
    """An open write transaction. Devices given to `wake` are woken once it has committed, and only then."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.woken: set[str] = set()

    def wake(self, device_ids: Iterable[str]) -> None:
        self.woken.update(device_ids)


class Database:
    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.postgres = parsed.get_backend_name() == "postgresql"
        self.wakeups = Wakeups()
        # How long a change made elsewhere may stay unheard. Nobody else is meant to write an SQLite file.
        self.recheck_seconds = 15.0 if self.postgres else 60.0
        self._engine = _engine(parsed, postgres=self.postgres)
        self._one_writer = asyncio.Lock()
        self._listener: Listener | None = None
        if self.postgres:
            conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
            self._listener = Listener(conninfo, self.wakeups)

    async def start(self) -> None:
        if self._listener is not None:
            self._listener.start()

    async def close(self) -> None:
        self.wakeups.close()
        if self._listener is not None:
            await self._listener.stop()
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One consistent picture over several statements."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if self.postgres else {}
        with _wrapped():
            async with self._engine.connect() as connection:
                await connection.execution_options(**options)
                async with connection.begin():
                    yield connection

    @asynccontextmanager
    async def write(self, note: Note | None = None) -> AsyncIterator[Transaction]:
        """Commits when the block ends, rolls back when it raises. A `note` becomes an audit record of the same transaction."""
        queue = nullcontext() if self.postgres else self._turn()
        with _wrapped():
            async with queue, self._engine.connect() as connection:
                await connection.execution_options(**{_WRITE: True})
                async with connection.begin():
                    transaction = Transaction(connection)
                    yield transaction
                    if note is not None:
                        await self.append_audit(transaction, note.record)
                    await self._announce(transaction)
        if note is not None:
            note.written = True
        self.wakeups.wake(transaction.woken)

    def insert(self, table: Table) -> Any:  # noqa: ANN401 - two insert classes with the same on_conflict methods
        return postgresql.insert(table) if self.postgres else sqlite.insert(table)

    def upsert(self, table: Table) -> Any:  # noqa: ANN401 - see insert
        """INSERT that replaces every column but the key of a row that is there."""
        statement = self.insert(table)
        key = [column.name for column in table.primary_key]
        others = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in key}
        return statement.on_conflict_do_update(index_elements=key, set_=others)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Of this process one writes at a time. Should another program hold the file, those behind do not wait for each
        of those before them to give up.
        """
        try:
            await asyncio.wait_for(self._one_writer.acquire(), _QUEUE_SECONDS)
        except TimeoutError as error:
            raise DatabaseUnavailable(problem="it is busy; another program may be holding it") from error
        try:
            yield
        finally:
            self._one_writer.release()

    async def append_audit(self, transaction: Transaction, record: AuditRecord) -> AuditEntry:
        """Number and store a record. To be called last: from here to the commit other writers of the log wait."""
        counted = self.insert(counters).values(name=_AUDIT, value=1)
        counted = counted.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
        n = int((await transaction.execute(counted.returning(counters.c.value))).scalar_one())
        entry = AuditEntry(n=n, **msgspec.structs.asdict(record))
        await transaction.execute(self.insert(audit).values(**msgspec.structs.asdict(entry)))
        return entry

    async def _announce(self, transaction: Transaction) -> None:
        if self.postgres and transaction.woken:
            await transaction.execute(_NOTIFY, {"channel": CHANNEL, "ids": sorted(transaction.woken)})


@contextmanager
def unique(kind: str, name: str) -> Iterator[None]:
    """A row that is already there is a Conflict."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict(kind=kind, name=name, problem="it is already there") from error


def parse_url(url: str) -> URL:
    """`sqlite:///path`, `postgresql://...`, or either with a driver; the driver is ours to choose."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(where="database", problem=f"{url} is not a database URL") from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed.set(drivername="sqlite+aiosqlite")
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case _:
            raise ConfigError(where="database", problem="use sqlite:///FILE or postgresql://...")


def _engine(url: URL, *, postgres: bool) -> AsyncEngine:
    if postgres:
        return create_async_engine(url, pool_size=10, max_overflow=10, pool_pre_ping=True)
    engine = create_async_engine(url, pool_size=8, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: the driver's own comes too late to keep a snapshot
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Conflict(kind="row", name="", problem=str(error.orig)) from error
    except DataError as error:
        raise BadRequest(problem=f"the database cannot hold a value: {error.orig}") from error
    except (DBAPIError, PoolTimeout) as error:
        raise DatabaseUnavailable(problem=str(getattr(error, "orig", None) or error)) from error
