# SPDX-License-Identifier: Apache-2.0
import threading
from pathlib import Path

import numpy as np
import pytest

from contracts.engine.models import accumulator
from skerry.bundle.manifest import State, TensorSpec
from skerry.errors import InferenceFailed, ManifestError, SequenceRefused, TooManySequences
from skerry.runtime.engine import Sequence
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.sequences import Limits, Stateful, stateful

SILERO = Path(__file__).resolve().parents[4] / "shared" / "data" / "models" / "silero_vad_16k_op15.onnx"
PAIR = (State(input="before", output="after"),)
ONE = np.ones((1, 2), np.float32)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(clock):
    return Stateful(OnnxEngine.load(accumulator()), PAIR, limits=Limits(count=3, idle=10.0), now=clock)


def ask(engine, identifier, *, start=False, end=False, x=ONE):
    return engine.run_in(Sequence(id=identifier, start=start, end=end), {"x": x})["sum"].tolist()


def test_clients_see_neither_end_of_the_state(engine):
    assert engine.io.inputs == (TensorSpec(name="x", dtype="FP32", shape=(1, 2)),)
    assert [spec.name for spec in engine.io.outputs] == ["sum"]
    assert list(engine.run({"x": ONE})) == ["sum"]


def test_state_goes_on_within_a_sequence_and_nowhere_else(engine):
    assert ask(engine, 1, start=True) == [[1, 1]]
    assert ask(engine, "1", start=True) == [[1, 1]]
    assert ask(engine, 1) == [[2, 2]]
    assert engine.run({"x": ONE})["sum"].tolist() == [[1, 1]]
    assert ask(engine, 1) == [[3, 3]]
    assert ask(engine, "1") == [[2, 2]]


def test_one_that_was_not_started_is_refused(engine):
    with pytest.raises(SequenceRefused, match="sequence 7: it is not live here"):
        ask(engine, 7)


def test_after_its_end_it_is_over(engine):
    ask(engine, 1, start=True)
    assert ask(engine, 1, end=True) == [[2, 2]]
    assert engine.sequences == 0
    with pytest.raises(SequenceRefused):
        ask(engine, 1)
    assert ask(engine, 1, start=True, end=True) == [[1, 1]]
    assert engine.sequences == 0


def test_a_start_under_an_id_in_use_ends_the_earlier_sequence(engine):
    ask(engine, 1, start=True)
    ask(engine, 1)
    assert ask(engine, 1, start=True) == [[1, 1]]
    assert engine.sequences == 1


def test_no_more_are_begun_than_there_is_room_for_and_the_others_go_on(engine):
    for identifier in (1, 2, 3):
        ask(engine, identifier, start=True)
    with pytest.raises(TooManySequences):
        ask(engine, 4, start=True)
    assert ask(engine, 2) == [[2, 2]]
    ask(engine, 2, end=True)
    assert ask(engine, 4, start=True) == [[1, 1]]


def test_idle_ones_are_forgotten_and_make_room(engine, clock):
    for identifier in (1, 2, 3):
        ask(engine, identifier, start=True)
    clock.now = 8.0
    ask(engine, 1)
    clock.now = 12.0
    assert ask(engine, 4, start=True) == [[1, 1]]
    assert engine.sequences == 2
    assert ask(engine, 1) == [[3, 3]]
    with pytest.raises(SequenceRefused):
        ask(engine, 2)


def test_a_run_that_fails_leaves_the_state_as_it_was(engine):
    ask(engine, 1, start=True)
    with pytest.raises(InferenceFailed):
        ask(engine, 1, x=np.ones((1, 3), np.float32))
    assert ask(engine, 1) == [[2, 2]]


def test_a_first_run_that_fails_begins_nothing(engine):
    with pytest.raises(InferenceFailed):
        ask(engine, 1, start=True, x=np.ones((1, 3), np.float32))
    assert engine.sequences == 0


def test_clients_cannot_give_the_state(engine):
    with pytest.raises(InferenceFailed, match="not for clients"):
        engine.run({"x": ONE, "before": ONE})


class Slow:
    """An engine that answers when it is let."""

    def __init__(self):
        self.inner = OnnxEngine.load(accumulator())
        self.io, self.description, self.on_cpu = self.inner.io, "slow 1", True
        self.begun, self.go = threading.Event(), threading.Event()

    def run(self, inputs):
        self.begun.set()
        assert self.go.wait(20)
        return self.inner.run(inputs)

    def close(self):
        self.inner.close()


def test_a_second_request_of_a_sequence_is_refused_while_one_is_under_way(clock):
    slow = Slow()
    engine = Stateful(slow, PAIR, limits=Limits(count=1, idle=10.0), now=clock)
    first: list[object] = []
    worker = threading.Thread(target=lambda: first.append(ask(engine, 1, start=True)))
    worker.start()
    assert slow.begun.wait(20)
    clock.now = 100.0  # a run that takes long is no idle sequence
    with pytest.raises(SequenceRefused, match="under way"):
        ask(engine, 1)
    with pytest.raises(SequenceRefused, match="under way"):
        ask(engine, 1, start=True)
    with pytest.raises(TooManySequences):
        ask(engine, 2, start=True)
    slow.go.set()
    worker.join(20)
    assert first == [[[1, 1]]]
    assert ask(engine, 1) == [[2, 2]]


def test_many_sequences_from_many_threads_keep_apart():
    engine = Stateful(OnnxEngine.load(accumulator()), PAIR)
    wrong: list[object] = []

    def work(identifier):
        ask(engine, identifier, start=True)
        wrong.extend((identifier, step) for step in range(2, 60) if ask(engine, identifier) != [[step, step]])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        (State(input="no", output="after"), "no such input"),
        (State(input="before", output="x"), "no such input and output"),
    ],
)
def test_state_the_model_has_not_got_is_refused(pair, problem):
    with pytest.raises(ManifestError, match=problem):
        stateful(OnnxEngine.load(accumulator()), (pair,))


def test_an_engine_without_state_stays_itself():
    engine = OnnxEngine.load(accumulator())
    assert stateful(engine, ()) is engine


@pytest.mark.skipif(not SILERO.is_file(), reason="no shared data here")
def test_silero_hears_the_same_with_its_state_kept_for_it():
    plain = OnnxEngine.load(SILERO.read_bytes())
    engine = Stateful(OnnxEngine.load(SILERO.read_bytes()), (State(input="state", output="stateN"),))
    assert [spec.name for spec in engine.io.inputs] == ["input", "sr"]
    random = np.random.default_rng(5)
    frames = (np.sin(np.arange(20 * 576) / 15).reshape(20, 1, 576) + random.normal(0, 0.1, (20, 1, 576))).astype("f4")
    rate = np.array(16000)
    state = np.zeros((2, 1, 128), np.float32)
    for number, frame in enumerate(frames):
        expected = plain.run({"input": frame, "state": state, "sr": rate})
        state = expected["stateN"]
        sequence = Sequence(id="microphone", start=number == 0)
        heard = engine.run_in(sequence, {"input": frame, "sr": rate})
        np.testing.assert_array_equal(heard["output"], expected["output"])
