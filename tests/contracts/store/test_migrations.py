# SPDX-License-Identifier: Apache-2.0
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from skerry.errors import ConfigError, DatabaseUnavailable
from skerry.hub.store.migrate import alembic_config, connected, migrate
from skerry.hub.store.sql import open_store
from skerry.hub.store.tables import metadata

_DEVICE = (
    "INSERT INTO devices (id, name, labels, public_key, capabilities, enrolled, issues, doubts, through, desired_version, "
    "assignment_sequence, applied_sequence, applied_version, history_n, history_hash) "
    "VALUES ('{name}', 'cam', '{{}}', '', '{{}}', 0, '[]', '[]', {through}, 0, 0, 0, 0, 0, '')"
)
OF_THE_FIRST_SCHEMA = (
    _DEVICE.format(name="d1", through=2),
    _DEVICE.format(name="d2", through=0),
    "INSERT INTO reports (device_id, seq, received, report) VALUES ('d1', 1, 0, '{}'), ('d1', 2, 0, '{}')",
)


def test_the_migrations_make_exactly_the_tables(database_url):
    with connected(database_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_is_nothing(database_url):
    migrate(database_url)
    with connected(database_url) as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1


def test_reports_of_the_first_schema_are_those_of_an_outbox_without_a_name(empty_url):
    with connected(empty_url) as connection:
        command.upgrade(alembic_config(connection), "0001")
        for statement in OF_THE_FIRST_SCHEMA:
            connection.execute(text(statement))
    migrate(empty_url)
    with connected(empty_url) as connection:
        assert connection.execute(text("SELECT n, report FROM reports ORDER BY n")).all() == [(1, "{}"), (2, "{}")]
        assert connection.execute(text("SELECT id, report_n FROM devices ORDER BY id")).all() == [("d1", 2), ("d2", 0)]
        assert connection.execute(text("SELECT device_id, outbox, through, lost FROM outboxes")).all() == [
            ("d1", "", 2, 0)
        ]


def test_workloads_of_a_hub_without_trials_are_wanted_as_before(empty_url):
    with connected(empty_url) as connection:
        command.upgrade(alembic_config(connection), "0002")
        connection.execute(text(_DEVICE.format(name="d1", through=0).replace("through", "report_n")))
        connection.execute(text("INSERT INTO desired_workloads VALUES ('d1', 'w', '{}', '', 30)"))
    migrate(empty_url)
    with connected(empty_url) as connection:
        wanted = connection.execute(text("SELECT workload, trial, keep_warm FROM desired_workloads")).all()
    assert wanted == [("w", None, None)]


def test_a_database_of_a_newer_hub_is_refused_and_left_alone(database_url):
    with connected(database_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="another version"):
        migrate(database_url)
    with connected(database_url) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


def test_a_migration_cut_short_leaves_nothing_behind(tmp_path):
    url = f"sqlite:///{tmp_path / 'hub.db'}"

    def cut_short() -> None:
        with connected(url) as connection:
            metadata.create_all(connection)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        cut_short()
    migrate(url)


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "not a url"])
def test_other_databases_are_refused(url):
    with pytest.raises(ConfigError):
        migrate(url)


def test_a_database_that_does_not_answer_is_said_so(tmp_path):
    with pytest.raises(DatabaseUnavailable):
        migrate(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable):
        migrate(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")


@pytest.mark.anyio
async def test_driver_names_in_the_url_do_not_matter(tmp_path):
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'hub.db'}")
    await store.ping()
    await store.close()
