# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the hub at random instants during rollouts: no wrong record, nothing lost, and it always goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KILLS = 200


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hundred_kills_leave_no_wrong_record(tmp_path, record_property):
    command = [sys.executable, str(TESTS / "faults" / "hub_victim.py"), str(tmp_path), str(KILLS), "20"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    record_property("figures", json.dumps(figures))
    assert figures["problems"] == []
    assert figures["done"] >= 1
    assert figures["undone"] >= 1
