# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from acceptance.runner_harness import write_bundle
from contracts.engine.models import affine
from skerry.bundle.manifest import Tolerance
from skerry.runner.probes import Probes
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.variant import load, self_test
from unit.serve.rig import Rig

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path, affine(), {"x": X}, tolerance=Tolerance(agreement=0.5))


class World:
    def __init__(self, bundle, agreed=None, **rig):
        self.loaded = load(bundle, "fp32")
        self.rig = Rig({"digits": affine()}, **rig)
        self.served = self.rig.served["digits"]
        agreed = self_test(self.loaded).agreed if agreed is None else agreed
        self.probes = Probes(self.loaded, self.served, agreed, ask=self.rig.desk.probe, clock=self.rig.clock)

    def tick(self, times=1):
        for _ in range(times):
            self.probes.tick()
        return self.served.counters.take_window()

    def answer_a_client(self):
        self.served.counters.answer((0.0, 0.0, 0.0, 0.0, 1), rows=1, at=0.0)


def test_an_idle_runner_probes_and_a_right_answer_is_no_error(bundle):
    world = World(bundle)
    world.tick()
    window = world.tick(3)
    assert (window.probes, window.errors, window.requests) == (3, 0, 0)


def test_a_busy_runner_does_not(bundle):
    world = World(bundle)
    world.tick()
    world.answer_a_client()
    assert world.tick().probes == 0
    assert world.tick().probes == 1


def test_a_wrong_answer_is_an_error(bundle):
    world = World(bundle)
    world.tick()
    world.served.engine = OnnxEngine.load(affine(bias=1.0))
    window = world.tick(2)
    assert (window.probes, window.errors) == (2, 2)


def test_a_failing_engine_is_an_error(bundle):
    world = World(bundle)
    world.tick()
    world.served.engine.close()
    assert world.tick().errors == 1


def test_samples_missed_at_the_self_test_are_never_asked(bundle):
    world = World(bundle, agreed=())
    assert world.tick(3).probes == 0


def test_one_probe_at_a_time_and_the_time_it_waited_counts(bundle):
    world = World(bundle, cost=1.0, hold=True)
    world.tick(4)
    assert len(world.rig.pool.jobs) == 1
    world.rig.clock.advance(3.0)
    world.rig.pool.release()
    window = world.tick(0)
    assert window.probes == 1
    assert window.latency.quantile(0.5) == pytest.approx(3.0, rel=0.02)


def test_a_full_queue_is_no_failed_probe(bundle):
    world = World(bundle, cost=1.0, queue=0)
    window = world.tick(3)
    assert (window.probes, window.errors) == (0, 0)


def test_a_model_that_hangs_fails_a_probe_every_tick(bundle):
    world = World(bundle, cost=1.0, hold=True)
    world.tick()
    assert world.tick(2).errors == 0
    world.rig.clock.advance(61)
    assert world.tick(2).errors == 2
    assert world.served.counters.probe_errors == 2


def test_a_probe_that_waits_behind_clients_is_no_error(bundle):
    world = World(bundle, cost=1.0, hold=True)
    world.tick(2)
    world.rig.clock.advance(100)
    world.answer_a_client()
    assert world.tick().errors == 0
