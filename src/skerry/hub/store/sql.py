# SPDX-License-Identifier: Apache-2.0
"""The store on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio

from sqlalchemy import select

from skerry.hub.store.database import Database
from skerry.hub.store.migrate import migrate
from skerry.hub.store.sql_access import SqlAccess, SqlLeases
from skerry.hub.store.sql_assignments import SqlAssignments
from skerry.hub.store.sql_catalogue import SqlCatalogue
from skerry.hub.store.sql_devices import SqlDevices
from skerry.hub.store.sql_reports import SqlReports
from skerry.hub.store.sql_rollouts import SqlRollouts
from skerry.hub.store.wholeness import whole_methods


@whole_methods(but=frozenset({"wait_for_change", "close"}))
class SqlStore(SqlDevices, SqlAssignments, SqlReports, SqlRollouts, SqlCatalogue, SqlAccess, SqlLeases):
    """Implements `interface.Store`. Made by `open_store`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def ping(self) -> None:
        async with self._db.read() as connection:
            await connection.execute(select(1))

    async def close(self) -> None:
        await self._db.close()


async def open_store(url: str) -> SqlStore:
    """Migrate the database to this version and open it: `sqlite:///FILE` or `postgresql://...`.

    ConfigError for any other URL, or a database made by a newer version; DatabaseUnavailable when it does not answer.
    """
    await asyncio.to_thread(migrate, url)
    database = Database(url)
    await database.start()
    return SqlStore(database)
