# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the hub at random instants during rollouts: no wrong record, nothing lost, and it always goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.store.private_postgres import binaries, private_postgres

TESTS = Path(__file__).parents[1]
KILLS = 200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def after_kills(folder, *more):
    command = [sys.executable, str(TESTS / "faults" / "hub_victim.py"), str(folder), str(KILLS), "20", *more]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def held(figures):
    assert figures["problems"] == []
    assert figures["done"] >= 1
    assert figures["undone"] >= 1


def test_two_hundred_kills_leave_no_wrong_record(tmp_path, record_property):
    figures = after_kills(tmp_path)
    record_property("figures", json.dumps(figures))
    held(figures)


@pytest.mark.postgres
def test_two_hundred_kills_of_either_of_two_replicas_leave_no_wrong_record(tmp_path, record_property):
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL server binaries (apt install postgresql-15)")
    with private_postgres(place) as server:
        figures = after_kills(tmp_path, server.database())
    record_property("figures", json.dumps(figures))
    held(figures)
