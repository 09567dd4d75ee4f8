# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import pytest
from onnx import TensorProto, helper

from contracts.engine.models import affine, affine_answer, build, identity
from skerry.errors import ClientGone, DeadlineExceeded, InferenceFailed, Overloaded
from skerry.oip.messages import InferRequest, Selection
from skerry.runtime.costs import BATCH, Costs, measure
from skerry.runtime.engine import Engine
from skerry.runtime.onnx import OnnxEngine
from skerry.serve.calls import Answered, Call, Crashed, Refused
from skerry.serve.desk import Desk, Surroundings
from skerry.serve.scheduling.lanes import InlineLane, Turn
from skerry.serve.scheduling.placing import place
from skerry.serve.scheduling.tickets import groups, run
from skerry.serve.scheduling.workers import WorkerPool
from skerry.testing.clock import VirtualClock
from unit.serve.rig import HeldPool, Rig

CHEAP = Costs(one=30e-6, per_row=7e-6, why_not="")
SLOW = Costs(one=0.02, per_row=0.005, why_not="")


@pytest.mark.parametrize(
    ("costs", "budget", "inline", "rows"),
    [
        (CHEAP, 0, True, 16),
        (Costs(one=0.0003, per_row=0.0002, why_not=""), 0, True, 10),
        (Costs(one=0.00031, per_row=0.0001, why_not=""), 0, False, 16),
        (Costs(one=30e-6, per_row=28e-6, why_not=""), 0, True, 1),  # it does not pay
        (Costs(one=30e-6), 0, True, 1),  # it cannot be batched
        (SLOW, 0, False, 16),
        (SLOW, 0.05, False, 5),  # half of the budget for a run
        (SLOW, 0.01, False, 1),
        (Costs(one=0.0), 0, True, 1),
    ],
)
def test_where_and_how_a_model_runs_follows_from_what_was_measured(costs, budget, inline, rows):
    decided = place(costs, budget=budget)
    assert (decided.inline, decided.rows) == (inline, rows)
    assert decided.where
    assert decided.batching


class Ask(Call, kw_only=True):
    """A request that is already read; its answer is the array."""

    x: np.ndarray
    timeout: float = 0.0
    priority: int = 0
    hand: Callable[[object], None] = lambda _: None

    def hand_over(self, answer):
        self.hand(answer)

    def decode(self, model):
        return InferRequest(
            inputs={"x": self.x},
            wanted=Selection(outputs=(), binary=True),
            timeout=self.timeout,
            priority=self.priority,
        )

    def encode(self, request, outputs, model):
        return next(iter(outputs.values()))


class World:
    """Its own engine: `runner` runs, `sizes` = rows of every run."""

    turns: list[Callable[[], None]]
    runner: Callable[[dict], dict]

    def __init__(self, costs, *, model=None, threads=1, hold=True, queue=64, alone=False):
        self.rig = Rig({"m": model or affine()})
        self.served = self.rig.served["m"]
        self.served.costs = costs
        self.clock = VirtualClock()
        self.pool = HeldPool(hold=hold, threads=threads)
        self.turns = []
        self.outcomes = {}
        self.sizes = []
        self.served.engine = cast("Engine", self)
        self.runner = self.count
        self.engine = OnnxEngine.load(model or affine())
        self.io = self.engine.io
        turn = Turn(now=self.clock.monotonic, soon=self.turns.append, alone=lambda: alone)
        around = Surroundings(clock=self.clock, pool=self.pool, turn=turn, queue=queue)
        self.desk = Desk({"m": self.served}, around)

    def run(self, inputs):
        return self.runner(inputs)

    def count(self, inputs):
        self.sizes.append(len(inputs["x"]))
        return self.engine.run(inputs)

    def ask(self, name, x, **options):
        call = Ask(received=self.clock.monotonic(), x=np.asarray(x, np.float32), **options)
        self.desk.ask(self.served, call, lambda outcome: self.outcomes.setdefault(name, outcome))
        return call

    def turn(self):
        turns, self.turns[:] = list(self.turns), []
        for each in turns:
            each()


def inline(world):
    return world.desk.lanes["m"].placement.inline


def rows(n, start=0):
    return np.arange(start, start + 4 * n, dtype=np.float32).reshape(n, 4)


def test_what_came_in_one_turn_is_one_run_and_everyone_gets_his_own_rows():
    world = World(CHEAP)
    asked = {name: rows(n, start) for name, n, start in (("a", 1, 0), ("b", 3, 50), ("c", 2, 90))}
    for name, x in asked.items():
        world.ask(name, x)
    assert not world.outcomes
    world.turn()
    assert world.sizes == [6]
    for name, x in asked.items():
        np.testing.assert_allclose(world.outcomes[name].answer, affine_answer(x), rtol=1e-5)
        assert world.outcomes[name].batch == 3
    assert world.served.counters.runs == 1
    assert world.served.counters.batch.cumulative()[2] == (4.0, 3)


def test_a_batch_has_a_limit_and_requests_without_rows_run_alone():
    world = World(CHEAP)
    for n in range(5):
        world.ask(n, rows(6, n))
    world.ask("none", np.zeros((0, 4)))
    world.ask("last", rows(1))
    world.turn()
    assert world.sizes == [12, 12, 6, 0, 1]
    assert world.outcomes["none"].answer.shape == (0, 3)


def test_a_request_larger_than_a_batch_runs_alone():
    world = World(CHEAP)
    world.ask("big", rows(40))
    world.ask("small", rows(1))
    world.turn()
    assert world.sizes == [40, 1]


def test_a_long_turn_is_cut_short_so_that_others_are_heard():
    world = World(CHEAP)
    run_it = world.runner

    def slow(inputs):
        world.clock.advance(0.002)
        return run_it(inputs)

    world.runner = slow
    for n in range(6):
        world.ask(n, rows(16, n))
    world.turn()
    assert len(world.outcomes) == 2
    world.turn()
    world.turn()
    assert len(world.outcomes) == 6


def test_when_a_joint_run_fails_each_request_stands_for_itself():
    world = World(CHEAP)
    run_it = world.runner

    def refuse(inputs):
        if (inputs["x"] < 0).any():
            raise InferenceFailed(name="m", problem="negative")
        return run_it(inputs)

    world.runner = refuse
    world.ask("good", rows(1))
    world.ask("bad", rows(1, -9))
    world.turn()
    assert isinstance(world.outcomes["good"], Answered)
    assert isinstance(world.outcomes["bad"], Refused)


def test_an_engine_that_loses_rows_never_gives_one_client_another_ones_answer():
    world = World(CHEAP)
    run_it = world.runner
    world.runner = lambda inputs: {"scores": run_it(inputs)["scores"][: max(1, len(inputs["x"]) - 1)]}
    world.ask("a", rows(1))
    world.ask("b", rows(1, 9))
    world.turn()
    np.testing.assert_allclose(world.outcomes["a"].answer, affine_answer(rows(1)), rtol=1e-5)
    np.testing.assert_allclose(world.outcomes["b"].answer, affine_answer(rows(1, 9)), rtol=1e-5)


def test_a_defect_in_a_joint_run_is_everyones_crash_and_the_next_turn_goes_on(caplog):
    world = World(CHEAP)
    run_it, world.runner = world.runner, lambda _inputs: {"y": 1 / 0}
    world.ask("a", rows(1))
    world.ask("b", rows(1))
    world.turn()
    assert world.outcomes == {
        "a": Crashed(problem="ZeroDivisionError", name="m"),
        "b": Crashed(problem="ZeroDivisionError", name="m"),
    }
    world.runner = run_it
    world.ask("c", rows(1))
    world.turn()
    assert isinstance(world.outcomes["c"], Answered)
    assert "division" in caplog.text


def test_shapes_that_differ_behind_the_first_axis_are_not_joined():
    graph = [helper.make_node("Identity", ["x"], ["y"])]
    free = build(graph, [("x", TensorProto.FLOAT, ["N", "M"])], [("y", TensorProto.FLOAT, ["N", "M"])])
    world = World(CHEAP, model=free)
    for n in (2, 3, 3):
        world.ask(f"{n} {world.desk.waiting}", np.full((1, n), n))
    world.turn()
    assert world.sizes == [1, 2]
    assert [outcome.answer.shape for outcome in world.outcomes.values()] == [(1, 2), (1, 3), (1, 3)]


def test_alone_on_the_server_nobody_waits_for_the_end_of_the_turn():
    world = World(CHEAP, alone=True)
    world.ask("a", rows(1))
    assert isinstance(world.outcomes["a"], Answered)
    assert not world.turns


def test_a_model_that_has_become_slow_moves_to_the_workers_and_back():
    world = World(CHEAP, alone=True)
    pause = 0.002

    def timed(inputs):
        world.clock.advance(pause)
        return world.count(inputs)

    world.runner = timed
    for n in range(400):
        world.ask(n, rows(1))
        world.pool.release()
    assert not inline(world)
    assert "more than" in world.served.placement
    assert len(world.outcomes) == 400
    pause = 0.00001
    for n in range(400, 900):
        world.ask(n, rows(1))
        world.pool.release()
    assert inline(world)
    assert all(isinstance(outcome, Answered) for outcome in world.outcomes.values())
    assert len(world.outcomes) == 900


def test_one_run_that_was_interrupted_moves_nothing():
    world = World(CHEAP, alone=True)
    pauses = iter([5.0 if n % 10 == 0 else 0.0 for n in range(50)])

    def timed(inputs):
        world.clock.advance(next(pauses))
        return world.count(inputs)

    world.runner = timed
    for n in range(50):
        world.ask(n, rows(1))
    assert inline(world)


# --- workers -------------------------------------------------------------------------------------------------------------


def test_while_workers_are_busy_the_next_batch_forms():
    world = World(SLOW)
    for n in range(5):
        world.ask(n, rows(1, n))
    assert len(world.pool.jobs) == 1
    world.pool.release()
    assert world.sizes == [1]
    world.pool.release()
    assert world.sizes == [1, 4]
    assert len(world.outcomes) == 5


def test_the_most_urgent_goes_first_then_who_came_first():
    world = World(Costs(one=0.02))
    order = []
    run_it = world.runner

    def noted(inputs):
        order.append(int(inputs["x"][0, 0]))
        return run_it(inputs)

    world.runner = noted
    for name, priority in ((0, 0), (1, 0), (2, 5), (3, 1), (4, 0), (5, 5)):
        world.ask(name, rows(1, name), priority=priority)
    while world.pool.jobs:
        world.pool.release()
    assert order == [0, 3, 2, 5, 1, 4]


def test_what_cannot_be_answered_in_time_is_refused_at_once():
    world = World(Costs(one=1.0))
    for n in range(4):
        world.ask(n, rows(1))
    world.ask("hurried", rows(1), timeout=2.0)
    assert world.outcomes["hurried"].error.code == Overloaded.code
    assert world.outcomes["hurried"].error.fields["retry_after"] == 4
    world.ask("patient", rows(1), timeout=60.0)
    assert "patient" not in world.outcomes


def test_what_expired_while_it_waited_is_never_run():
    world = World(Costs(one=1.0))
    world.ask("first", rows(1))
    world.ask("second", rows(1), timeout=5.0)
    world.clock.advance(10.0)
    world.pool.release()
    world.pool.release()
    assert world.outcomes["second"].error.code == DeadlineExceeded.code
    assert world.sizes == [1]


@pytest.mark.parametrize("costs", [CHEAP, SLOW])
def test_a_deadline_that_is_past_is_refused_before_anything_runs(costs):
    world = World(costs)
    world.clock.advance(5.0)
    world.ask("late", rows(1), deadline=world.clock.monotonic() - 1.0)
    assert world.outcomes["late"].error.code == DeadlineExceeded.code
    assert not world.sizes


def test_the_queue_is_bounded():
    world = World(Costs(one=0.02), queue=2)
    for n in range(4):
        world.ask(n, rows(1))
    assert [name for name, outcome in world.outcomes.items() if isinstance(outcome, Refused)] == [3]
    assert world.outcomes[3].error.fields["retry_after"] >= 1
    assert world.served.counters.failed == {Overloaded.code: 1}


def test_what_takes_long_to_read_is_read_on_a_worker():
    world = World(CHEAP)
    world.ask("text", rows(1), size=1_000_000)
    world.ask("gzip", rows(1), heavy=True)
    assert len(world.pool.jobs) == 2
    assert world.desk.waiting == 2
    world.pool.release()
    assert world.desk.waiting == 0
    assert all(isinstance(outcome, Answered) for outcome in world.outcomes.values())


def test_jobs_run_off_the_loop_and_are_answered_on_it(run_loop):
    async def main():
        pool = WorkerPool(asyncio.get_running_loop(), threads=2)
        answers: asyncio.Queue[int] = asyncio.Queue()
        for n in range(10):
            pool.submit(partial(pool.deliver, partial(answers.put_nowait, n * n)))
        assert {await answers.get() for _ in range(10)} == {n * n for n in range(10)}
        pool.close()

    run_loop(main())


@pytest.fixture
def run_loop():
    return asyncio.run


# --- what is measured at load --------------------------------------------------------------------------------------------


def test_a_model_is_measured_alone_and_in_a_batch():
    costs = measure(OnnxEngine.load(affine()), [{"x": rows(1)}])
    assert costs.one > 0
    assert costs.per_row > 0
    assert not costs.why_not


def test_a_model_of_strings_is_measured_too():
    costs = measure(OnnxEngine.load(identity(TensorProto.STRING)), [{"x": np.array([[b"a", b"b"]], object)}])
    assert costs.one > 0


def mixing():
    """Every row's answer depends on the others: the mean over the batch is taken off."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return build(nodes, [("x", TensorProto.FLOAT, ["N", 4])], [("y", TensorProto.FLOAT, ["N", 4])])


@pytest.mark.parametrize("samples", [1, 3])
def test_a_model_that_mixes_the_rows_of_a_batch_is_never_batched(samples):
    costs = measure(OnnxEngine.load(mixing()), [{"x": rows(1, n + 1)} for n in range(samples)])
    assert costs.why_not == "answers in a batch differ from single ones"
    assert place(costs).rows == 1


def test_a_model_whose_first_axis_is_fixed_is_never_batched():
    fixed = build(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [1, 4])],
        [("y", TensorProto.FLOAT, [1, 4])],
    )
    assert measure(OnnxEngine.load(fixed), [{"x": rows(1)}]).why_not == "the first axis of x is not open"


def test_batches_of_samples_that_are_batches_are_not_measured():
    assert measure(OnnxEngine.load(affine()), [{"x": rows(BATCH)}]).why_not == "a sample is not one row"


def test_groups_of_nothing():
    assert list(groups([], 4)) == []


def test_a_lane_without_tickets_runs_nothing():
    world = World(CHEAP)
    assert isinstance(world.desk.lanes["m"], InlineLane)
    assert run(world.served, [], world.clock.monotonic) == []


# --- who waits in vain, and who for ever ---------------------------------------------------------------------------------


def order_of(world):
    """What will have been run, by the first value of each request."""
    order = []
    run_it = world.runner

    def noted(inputs):
        order.append(int(inputs["x"][0, 0]))
        return run_it(inputs)

    world.runner = noted
    return order


@pytest.mark.parametrize("costs", [SLOW, Costs(one=0.02)], ids=["batched", "alone"])
def test_what_nobody_waits_for_any_more_is_not_run(costs):
    world = World(costs)
    order = order_of(world)
    calls = {n: world.ask(n, rows(1, n)) for n in range(4)}
    for n in (1, 3):
        calls[n].gone = True
    while world.pool.jobs:
        world.pool.release()
    assert sum(world.sizes) == 2
    assert order == [0, 2]
    assert [world.outcomes[n].error.code for n in (1, 3)] == [ClientGone.code] * 2
    counters = world.served.counters
    assert (counters.refused, counters.failed) == ({ClientGone.code: 2}, {})


def test_what_nobody_waits_for_any_more_is_not_run_on_the_loop():
    world = World(CHEAP)
    calls = [world.ask(n, rows(1, n)) for n in range(3)]
    calls[0].gone = calls[2].gone = True
    world.turn()
    assert world.sizes == [1]
    assert isinstance(world.outcomes[1], Answered)


def test_what_nobody_waits_for_any_more_is_not_read():
    world = World(CHEAP)
    call = world.ask("long", rows(1), size=1_000_000)
    call.gone = True
    world.pool.release()
    assert world.outcomes["long"].error.code == ClientGone.code
    assert not world.sizes
    assert not world.desk.waiting


def test_who_has_gone_makes_room_in_a_full_queue():
    world = World(Costs(one=0.02), queue=2)
    calls = [world.ask(n, rows(1)) for n in range(3)]
    calls[1].gone = True
    world.ask("new", rows(1))
    assert world.outcomes[1].error.code == ClientGone.code
    assert "new" not in world.outcomes
    world.ask("one too many", rows(1))
    assert world.outcomes["one too many"].error.code == Overloaded.code


def test_what_waits_for_the_loop_is_bounded():
    world = World(CHEAP, queue=2)
    for n in range(40):
        world.ask(n, rows(1))
    assert [name for name, outcome in world.outcomes.items() if isinstance(outcome, Refused)] == list(range(32, 40))
    assert {outcome.error.code for outcome in world.outcomes.values()} == {Overloaded.code}
    world.turn()
    assert len(world.outcomes) == 40
    assert world.served.counters.failed == {Overloaded.code: 8}


def test_an_urgent_client_delays_the_others_but_not_for_ever():
    world = World(Costs(one=0.02))
    order = order_of(world)
    world.ask("first", rows(1, 100), priority=1)
    world.ask("patient", rows(1, 200))
    for n in range(20):
        world.ask(n, rows(1, n), priority=1)
        world.pool.release()
    assert order.index(200) == 7


def test_an_urgent_client_does_not_keep_the_loop_to_itself():
    world = World(Costs(one=0.0002))
    order = order_of(world)
    run_it = world.runner

    def long(inputs):
        world.clock.advance(0.01)  # one of these is a turn
        return run_it(inputs)

    world.runner = long
    world.ask("patient", rows(1, 200))
    for n in range(4):
        world.clock.advance(0.001)
        world.ask(("urgent", n), rows(1, n), priority=1)
        world.ask(("more", n), rows(1, n), priority=1)
        world.turn()
    assert 200 in order
    assert order[0] == 0


def test_whoever_names_a_priority_goes_before_who_names_none():
    world = World(Costs(one=0.02))
    order = order_of(world)
    for name, priority in ((0, 0), (1, 0), (2, 1 << 32), (3, 70_000)):
        world.ask(name, rows(1, name), priority=priority)
    while world.pool.jobs:
        world.pool.release()
    assert order == [0, 3, 2, 1]


def test_an_answer_that_cannot_be_handed_over_goes_over_the_loop(caplog):
    world = World(SLOW)

    def broken(answer):
        raise RuntimeError("no way")

    for n in range(3):
        world.ask(n, rows(1), hand=broken)
    while world.pool.jobs:
        world.pool.release()
    assert all(isinstance(outcome, Answered) for outcome in world.outcomes.values())
    assert len(world.outcomes) == 3
    assert "was not given" in caplog.text


@pytest.mark.parametrize(("costs", "alone"), [(CHEAP, False), (CHEAP, True), (SLOW, False)])
def test_a_defect_in_giving_one_answer_is_logged_and_takes_no_other_with_it(costs, alone, caplog):
    world = World(costs, alone=alone)
    given = []

    def give(name, outcome):
        given.append(name)
        if name == "bad":
            raise RuntimeError("a defect")

    for name in ("first", "bad", "third", "fourth"):
        call = Ask(received=world.clock.monotonic(), x=rows(1))
        world.desk.ask(world.served, call, partial(give, name))
    world.turn()
    while world.pool.jobs:
        world.pool.release()
    assert given == ["first", "bad", "third", "fourth"]
    assert "a defect" in caplog.text
    assert world.served.counters.answered == 4
    assert not world.served.counters.failed
