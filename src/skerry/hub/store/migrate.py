# SPDX-License-Identifier: Apache-2.0
"""Bring a database to the newest schema: one transaction, so that a hub killed meanwhile leaves the old one, whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from skerry.errors import ConfigError, DatabaseUnavailable
from skerry.hub.store import migrations
from skerry.hub.store.database import parse_url

_LOCK = 0x5CE441  # any number, the same on every replica


def migrate(url: str) -> None:
    """Blocks. Replicas starting together wait for one another. Never goes back: a newer schema is a ConfigError."""
    with connected(url) as connection:
        try:
            command.upgrade(alembic_config(connection), "head")
        except CommandError as error:
            raise ConfigError(where="database", problem=f"made by another version of the hub: {error}") from error


def alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection in a transaction nobody else migrates in; committed at the end."""
    parsed = parse_url(url)
    postgres = parsed.get_backend_name() == "postgresql"
    engine = create_engine(parsed if postgres else parsed.set(drivername="sqlite+pysqlite"))
    if not postgres:
        event.listen(engine, "connect", lambda dbapi, _: setattr(dbapi, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            if postgres:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection
    except DBAPIError as error:
        raise DatabaseUnavailable(problem=str(error.orig)) from error
    finally:
        engine.dispose()
