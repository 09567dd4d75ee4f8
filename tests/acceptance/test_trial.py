# SPDX-License-Identifier: Apache-2.0
"""Trials on a real stack: hub, agent and runners are processes on loopback, and a client never stops asking."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from msgspec.structs import replace

from skerry.agent.supervise.orphans import find_orphans
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.operator import Gate, Metric, RolloutStatus
from support.stack import MODEL, AgentChild, Stack, start_stack, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHADOW = Trial(seconds=2.0, longest_seconds=30.0, min_samples=50)
CANARY = Trial(mode=TrialMode.CANARY, percent=25.0, seconds=2.0, longest_seconds=30.0, min_samples=20)
AGREEMENT = Gate(metric=Metric.AGREEMENT, min=0.98)


class Client(threading.Thread):
    """One keep-alive connection after another; counts answers by version, and everything that is none."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.versions: Counter[str] = Counter()
        self.problems: list[str] = []
        self._port = port
        self._over = threading.Event()

    def run(self) -> None:
        random = np.random.default_rng(3)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._over.wait(0.002):
            data = random.standard_normal(4).tolist()
            body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": data}]})
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", body)
                reply = connection.getresponse()
                answer = json.loads(reply.read())
                if reply.status == 200:
                    self.versions[answer["model_version"]] += 1
                else:
                    self.problems.append(f"{reply.status} {answer}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.problems.append(repr(error))
                connection.close()
        connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join(30)


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    made = start_stack(tmp_path_factory.mktemp("s"))
    try:
        made.add_agent("edge")
        first = made.deploy(made.publish(seed=7))
        made.await_rollout(first, RolloutStatus.DONE)
        yield made
    finally:
        made.close()


@pytest.fixture
def client(stack) -> Iterator[Client]:
    url = device(stack).workload()["url"]
    made = Client(int(url.rpartition(":")[2]))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def device(stack: Stack) -> AgentChild:
    return stack.agents[0]


def runners(stack: Stack) -> dict[str, int]:
    """Digest -> pid of what runs."""
    found = find_orphans(device(stack).state)
    for each in found:
        each.close()
    return {each.digest: each.pid for each in found}


def alone(stack: Stack) -> dict[str, int]:
    """The same, once what earlier versions left has ended."""

    def settled() -> bool:
        found = find_orphans(device(stack).state)
        for each in found:
            each.close()
        return len(found) == 1

    wait_until("one runner", settled, 60)
    return runners(stack)


def trying(stack: Stack) -> None:
    wait_until("the trial", lambda: device(stack).workload().get("state") == "trying", 30)


def serving(stack: Stack) -> str:
    return str(device(stack).workload().get("bundle", ""))


def test_a_version_that_agrees_passes_its_trial_and_is_switched_to(stack, client):
    name = stack.publish(seed=7)
    rollout = stack.deploy(name, trial=SHADOW, gates=(AGREEMENT,))
    view = stack.await_rollout(rollout, RolloutStatus.DONE)
    client.stop()
    report = view.devices[0].trial
    assert report is not None
    assert (report.finished, report.reason, report.errors) == (True, "", 0)
    assert report.agreed == report.compared >= 50
    assert (report.shift_mean, report.flips) == (0.0, {})
    assert report.latency_p95_ms is not None
    gate = next(gate for gate in view.stages[0].gates if gate.metric is Metric.AGREEMENT)
    assert (gate.measured, gate.passed) == (1.0, True)
    assert client.problems == []
    assert serving(stack) == name


def test_a_version_that_answers_differently_never_answers_a_client(stack, client):
    before, pids = serving(stack), alone(stack)
    rollout = stack.deploy(stack.publish(seed=1234), trial=SHADOW, gates=(AGREEMENT,))
    view = stack.await_rollout(rollout, RolloutStatus.UNDONE)
    client.stop()
    assert "update_success" in view.reason
    assert "agreement" in view.reason
    report = view.devices[0].trial
    assert report is not None
    assert (report.finished, report.reason) == (True, "agreement")
    assert report.agreed < report.compared
    assert sum(report.flips.values()) > 0
    assert client.problems == []
    assert set(client.versions) == {before.partition(":")[2]}
    assert serving(stack) == before
    assert alone(stack) == pids  # the very same process, and no other


def test_a_canary_answers_its_share_and_is_switched_to(stack, client):
    before, name = serving(stack).partition(":")[2], stack.publish(seed=7)
    new = name.partition(":")[2]
    errors = Gate(metric=Metric.CANARY_ERROR_RATE, max=0.01)
    rollout = stack.deploy(name, trial=CANARY, gates=(errors,), device_soak_seconds=3.0)
    wait_until("answers of the canary", lambda: client.versions[new] > 0, 30)
    seen = client.versions.copy()
    wait_until("more answers", lambda: (client.versions - seen).total() >= 100)
    during = client.versions - seen
    view = stack.await_rollout(rollout, RolloutStatus.DONE)
    client.stop()
    if serving(stack) == f"{MODEL}:{before}":  # else the switch came while we counted
        assert during[new] / during.total() == pytest.approx(0.25, abs=0.03)
    assert client.versions[before] > 0
    assert client.versions[new] > 0
    assert client.problems == []
    assert view.devices[0].trial.errors == 0
    assert view.devices[0].trial.compared == 0


def test_a_canary_that_is_killed_costs_no_client_an_answer(stack, client):
    before, known = serving(stack), set(alone(stack))
    name = stack.publish(seed=7)
    rollout = stack.deploy(name, trial=replace(CANARY, seconds=20.0))
    wait_until("answers of the canary", lambda: client.versions[name.partition(":")[2]] > 0, 30)
    (new,) = set(runners(stack)) - known
    os.kill(runners(stack)[new], signal.SIGKILL)
    view = stack.await_rollout(rollout, RolloutStatus.UNDONE)
    client.stop()
    assert "crashed-in-trial" in view.reason
    assert client.problems == []
    assert serving(stack) == before


def test_an_agent_that_is_killed_in_a_trial_holds_it_again(stack, client):
    name = stack.publish(seed=7)
    rollout = stack.deploy(name, trial=replace(SHADOW, seconds=4.0))
    trying(stack)
    device(stack).kill()
    device(stack).start()
    view = stack.await_rollout(rollout, RolloutStatus.DONE)
    client.stop()
    assert view.devices[0].trial.finished
    assert client.problems == []
    assert serving(stack) == name


def test_a_version_that_fails_its_soak_gives_way_at_once_to_the_one_kept_warm(stack, client):
    before, pids = serving(stack), alone(stack)
    rollout = stack.deploy(stack.publish(seed=7), device_soak_seconds=30.0)
    wait_until("the soak", lambda: device(stack).workload().get("state") == "soaking", 30)
    (new,) = set(runners(stack)) - set(pids)
    os.kill(runners(stack)[new], signal.SIGKILL)
    stack.await_rollout(rollout, RolloutStatus.UNDONE)
    client.stop()
    wait_until("the version before in the status", lambda: serving(stack) == before, 10)
    assert alone(stack) == pids  # loaded all the time
    assert [problem for problem in client.problems if not problem.startswith("503")] == []
    assert len(client.problems) <= 1  # the request that was in the runner that was killed
