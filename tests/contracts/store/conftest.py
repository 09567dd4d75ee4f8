# SPDX-License-Identifier: Apache-2.0
import shutil

import pytest

from contracts.store.private_postgres import binaries, private_postgres
from skerry.hub.store.migrate import migrate
from skerry.hub.store.sql import open_store


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres():
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL server binaries (apt install postgresql-15)")
    with private_postgres(place) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres):
    url = postgres.database()
    migrate(url)
    return postgres.name_of(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def database_url(request, tmp_path):
    """A fresh database with the newest schema."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "hub.db")
        yield f"sqlite:///{tmp_path / 'hub.db'}"
        return
    server = request.getfixturevalue("postgres")
    url = server.database(request.getfixturevalue("postgres_template"))
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def empty_url(request, tmp_path):
    """A fresh database without any schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'hub.db'}"
        return
    server = request.getfixturevalue("postgres")
    url = server.database()
    yield url
    server.drop(url)


@pytest.fixture
async def store(database_url, anyio_backend):
    opened = await open_store(database_url)
    yield opened
    await opened.close()
