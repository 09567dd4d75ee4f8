# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from skerry.hub.domain import LatestTrial, RolloutState, Seen
from skerry.hub.rollout.changes import changes_of
from skerry.hub.rollout.gates import measure
from skerry.hub.rollout.planner import plan
from skerry.hub.rollout.trials import trial_in_force
from skerry.hub.rollout.verbs import spec_problem
from skerry.hub.rollout.view import view
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.operator import Gate, Metric, RolloutSpec, RolloutStatus
from skerry.wire.v1.report import TrialReport
from unit.hub.rollout_world import START, World, bundle, fleet
from unit.hub.test_rollout_gates import STAGE, state

SHADOW = Trial(longest_seconds=100.0)
CANARY = replace(SHADOW, mode=TrialMode.CANARY)
AGREEMENT = Gate(metric=Metric.AGREEMENT, min=0.98)
RATIO = Gate(metric=Metric.SHADOW_LATENCY_RATIO, max=1.2)
ERRORS = Gate(metric=Metric.CANARY_ERROR_RATE, max=0.01)


def report(agreed: int = 100, *, mode: TrialMode = TrialMode.SHADOW, finished: bool = True, **fields) -> TrialReport:
    base = {"workload": "digits", "digest": bundle(2).digest, "seconds": 60.0, "asked": 100, "errors": 0}
    compared = 0 if mode is TrialMode.CANARY else 100
    given = {**base, "compared": compared, "agreed": min(agreed, compared), "rollout": "r-1", **fields}
    return TrialReport(mode=mode, finished=finished, **given)


def tried(outcomes: str, reports: Sequence[TrialReport | None], *gates: Gate, trial: Trial = SHADOW) -> RolloutState:
    made = state(outcomes, [None] * len(outcomes), *gates)
    seen = {
        str(n): Seen(trial=None if one is None else LatestTrial(device_id=str(n), at=0.0, received=5.0, report=one))
        for n, one in enumerate(reports)
    }
    return replace(made, seen=seen, rollout=replace(made.rollout, spec=replace(made.rollout.spec, trial=trial)))


def result(outcomes: str, reports: Sequence[TrialReport | None], gate: Gate, *, trial: Trial = SHADOW):
    found = measure(tried(outcomes, reports, gate, trial=trial), STAGE)[-1]
    return found.measured, found.passed


@pytest.mark.parametrize(
    ("outcomes", "reports", "expected"),
    [
        ("p", [None], (None, None)),
        ("p", [report(10, finished=False)], (0.1, None)),  # ten answers are not yet a share
        ("pp", [report(90), report(100, finished=False)], (0.9, False)),
        ("c", [report(99)], (0.99, True)),
        ("cp", [report(99), None], (0.99, None)),
        ("cc", [report(100), report(96)], (0.98, True)),  # over the stage
        ("cc", [report(100), report(95)], (0.975, False)),
        ("c", [None], (None, False)),  # nothing measured is not passed
        ("cc", [report(100), None], (1.0, False)),  # an agent that does not know of trials went on without one
        ("cc", [report(100), report(0, asked=0, compared=0)], (1.0, True)),  # it had nothing to compare with
        ("c", [report(0, asked=0, compared=0)], (None, False)),
        ("fc", [report(10), report(100)], (0.55, False)),
        ("ff", [None, None], (None, None)),  # that is for update_success to say
        ("c", [report(100, rollout="another")], (None, False)),
        ("c", [report(100, digest=bundle(1).digest)], (None, False)),
        ("c", [report(mode=TrialMode.CANARY)], (None, False)),
    ],
)
def test_agreement(outcomes, reports, expected):
    assert result(outcomes, reports, AGREEMENT) == expected


def test_the_worst_device_s_latency_and_shift_count():
    slow = [report(latency_ratio=1.1, shift_mean=-0.3), report(latency_ratio=1.3, shift_mean=0.1)]
    assert result("cc", slow, RATIO) == (1.3, False)
    assert result("cc", slow, Gate(metric=Metric.CONFIDENCE_SHIFT, max=0.3)) == (0.3, True)


def test_errors_of_a_canary_are_over_the_stage():
    reports = [report(mode=TrialMode.CANARY, errors=1), report(mode=TrialMode.CANARY, errors=2)]
    assert result("cc", reports, ERRORS, trial=CANARY) == (0.015, False)


def test_a_gate_on_a_trial_is_the_device_s_limit_too():
    spec = RolloutSpec(
        workload="w",
        bundle="m:1",
        trial=SHADOW,
        gates=(replace(AGREEMENT, min=0.9), RATIO, Gate(metric=Metric.CONFIDENCE_SHIFT, max=0.5)),
    )
    limits = trial_in_force(spec)
    assert limits is not None
    assert (limits.min_agreement, limits.max_latency_ratio, limits.max_confidence_shift) == (0.9, 1.2, 0.5)
    assert trial_in_force(replace(spec, trial=None)) is None
    canary = replace(spec, trial=CANARY, gates=(ERRORS, Gate(metric=Metric.CANARY_LATENCY_RATIO, max=3)))
    limits = trial_in_force(canary)
    assert limits is not None
    assert (limits.max_error_rate, limits.max_latency_ratio) == (0.01, 3)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"trial": SHADOW}, ""),
        ({"gates": (AGREEMENT,)}, "needs a trial by shadow"),
        ({"gates": (ERRORS,), "trial": SHADOW}, "needs a trial by canary"),
        ({"trial": replace(SHADOW, percent=0)}, "percent"),
        ({"trial": replace(SHADOW, percent=101)}, "percent"),
        ({"trial": replace(SHADOW, seconds=-1)}, "seconds"),
        ({"trial": replace(SHADOW, seconds=float("nan"))}, "seconds"),
        ({"trial": replace(SHADOW, seconds=200)}, "seconds"),
        ({"trial": replace(SHADOW, min_samples=0)}, "min_samples"),
        ({"trial": replace(SHADOW, max_error_rate=float("inf"))}, "limit"),
        ({"trial": replace(SHADOW, longest_seconds=3600)}, "deadline"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused(fields, problem):
    found = spec_problem(RolloutSpec(workload="w", bundle="m:1", **fields))
    assert problem in found
    assert bool(problem) == bool(found)


def test_devices_are_assigned_the_trial_and_go_back_without_one():
    spec = RolloutSpec(workload="digits", bundle="digits:2.0", trial=SHADOW, gates=(AGREEMENT,))
    world = World(fleet(1), spec)
    world.apply(changes_of(world.state(), plan(world.state(), START).actions, START))
    assigned = changes_of(world.state(), plan(world.state(), START).actions, START)
    assert assigned.desired[0].trial == SHADOW
    world.run(seconds=200)  # its agent knows of no trials
    assert world.status() is RolloutStatus.UNDONE
    assert "agreement was not measured: edge-0000" in world.rollout.reason
    assert world.devices["d0000"].running == bundle(1).digest


def test_the_view_shows_each_device_s_trial():
    shown = view(tried("cc", [report(97), None], AGREEMENT))
    assert [device.trial and device.trial.agreed for device in shown.devices] == [97, None]
