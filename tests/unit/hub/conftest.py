# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from functools import partial

import pytest

from skerry.hub.store.migrate import migrate
from support.hub_world import make_trust, play


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    return make_trust(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def hub(tmp_path, keys, empty_database):
    """Call it with a scene: an async function that gets a World. Call it again to restart the hub on the same data."""
    shutil.copy(empty_database, tmp_path / "hub.sqlite")
    return partial(play, tmp_path=tmp_path, keys=keys)
