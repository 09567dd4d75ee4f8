# SPDX-License-Identifier: Apache-2.0
"""The whole stack under kill -9; benchmarks/bench_kill.py runs the same for 200 instants."""

import pytest

from support.kill_sweep import Sweep
from support.stack import start_stack


@pytest.fixture
def stack(tmp_path):
    stack = start_stack(tmp_path / "stack")
    yield stack
    stack.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killing_hub_and_agents_leaves_no_wrong_record_and_no_half_installed_model(stack):
    for number in (1, 2):
        stack.add_agent(f"agent-{number}")
    findings = Sweep(stack, kills=12, seed=20261120, per_rollout=4).run()
    assert sum(findings.kills.values()) == 12
    assert findings.wrong_records == []
    assert findings.half_installed == []
