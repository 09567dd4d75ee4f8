# SPDX-License-Identifier: Apache-2.0
"""A real runner in its sandbox: it serves, says what it gave up, and the model's code gets nowhere."""

import http.client
import json
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import classifier
from skerry.runner import landlock
from skerry.wire.v1.runner import Loaded, SelfTested

pytestmark = pytest.mark.slow
X = np.arange(20, dtype=np.float32).reshape(5, 4)
POISONED = Path(__file__).parents[1] / "support" / "poisoned_runner.py"


@pytest.fixture
def listener():
    with listen() as listener:
        yield listener


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", classifier(), {"x": X})


def scores(runner, value):
    connection = http.client.HTTPConnection(runner.url, timeout=20)
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value] * 4}]}
    connection.request("POST", "/v2/models/digits/infer", json.dumps(body))
    answer = connection.getresponse()
    assert answer.status == 200
    found = next(output["data"] for output in json.loads(answer.read())["outputs"] if output["name"] == "scores")
    connection.close()
    return found


def test_what_the_models_code_tries_fails_and_the_runner_serves_on(bundle, listener):
    with RunnerProcess(bundle, listener, program=[str(POISONED)]) as runner:
        layers = runner.expect(Loaded).sandbox
        assert layers["seccomp"] == "on"
        assert layers["landlock"].startswith("on: " if landlock.abi() else "off: this kernel")
        assert runner.expect(SelfTested).passed
        runner.serve_now()
        assert scores(runner, 777) == [0.0 if landlock.abi() else 1.0, 0.0, 0.0]
        assert scores(runner, 1) == [0.0, -1.0, -2.0]


def test_without_a_sandbox_all_of_it_works_and_the_agent_is_told(bundle, listener):
    with RunnerProcess(bundle, listener, program=[str(POISONED)], sandbox=False) as runner:
        assert runner.expect(Loaded).sandbox == {"sandbox": "off: not asked for"}
        assert runner.expect(SelfTested).passed
        runner.serve_now()
        assert scores(runner, 777) == [1.0, 1.0, 1.0]


def test_what_the_engine_derives_is_kept_in_the_one_folder_it_may_write_to(bundle, listener, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for _ in range(2):
        with RunnerProcess(bundle, listener, cache_dir=str(cache)).serve() as runner:
            scores(runner, 1)
        assert len(list(cache.iterdir())) == 1


@pytest.mark.skipif(not landlock.abi(), reason="no Landlock in this kernel")
def test_a_cache_that_is_no_folder_of_ours_costs_nothing_but_time(bundle, listener):
    with RunnerProcess(bundle, listener, cache_dir="/no/such/folder").serve() as runner:
        scores(runner, 1)
