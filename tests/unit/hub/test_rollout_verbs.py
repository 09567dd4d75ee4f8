# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from skerry.hub.domain import Allowed, BundleRecord, Refused
from skerry.hub.rollout.verbs import decide_create, joined_selector, spec_problem
from skerry.wire.v1.operator import Gate, Metric, RolloutSpec, StageSpec
from unit.hub.rollout_world import bundle

SPEC = RolloutSpec(workload="digits", bundle="digits:2.0", stages=(StageSpec(name="one", count=1),))
RECORD = BundleRecord(ref=bundle(2), published=0.0, size=1, config=b"{}")
SOME = frozenset({"d1", "d2"})


def test_a_sound_rollout_is_allowed():
    assert decide_create(SPEC, RECORD, devices=SOME, active={"r-0": frozenset({"d3"})}) == Allowed()


def test_a_quarantined_bundle_is_refused_with_the_reason():
    bad = replace(RECORD, quarantined=1.0, quarantine_reason="rollout r-0: too slow")
    answer = decide_create(SPEC, bad, devices=SOME, active={})
    assert answer == Refused(reason="bundle digits:2.0 is quarantined: rollout r-0: too slow")


def test_two_rollouts_never_hold_the_same_workload_of_a_device():
    answer = decide_create(SPEC, RECORD, devices=SOME, active={"r-0": frozenset({"d2", "d3"})})
    assert answer == Refused(reason="rollout r-0 holds workload digits of 1 of these devices")


def test_a_rollout_to_nobody_is_refused():
    assert decide_create(SPEC, RECORD, devices=frozenset(), active={}) == Refused(reason="no device matches")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"workload": ""}, "workload is empty"),
        ({"workload": "../../evil"}, "is not a name"),
        ({"workload": "A B"}, "is not a name"),
        ({"deadline_seconds": 0.0}, "deadline_seconds"),
        ({"deadline_seconds": math.inf}, "deadline_seconds"),
        ({"device_soak_seconds": -1.0}, "device_soak_seconds"),
        ({"stages": (StageSpec(name="a"), StageSpec(name="a"))}, "same name"),
        ({"stages": tuple(StageSpec(name=str(n)) for n in range(201))}, "at most 200 stages"),
        ({"gates": (Gate(metric=Metric.ERROR_RATE, max=0.1),) * 21}, "at most 20 gates"),
        ({"stages": (StageSpec(name=""),)}, "no name"),
        ({"stages": (StageSpec(name="a", count=1, percent=2),)}, "both count and percent"),
        ({"stages": (StageSpec(name="a", count=0),)}, "count must be"),
        ({"stages": (StageSpec(name="a", percent=0),)}, "percent must be"),
        ({"stages": (StageSpec(name="a", percent=101),)}, "percent must be"),
        ({"stages": (StageSpec(name="a", percent=math.nan),)}, "percent must be"),
        ({"stages": (StageSpec(name="a", soak_seconds=-1),)}, "soak_seconds"),
        ({"gates": (Gate(metric=Metric.ERROR_RATE),)}, "min or max"),
        ({"gates": (Gate(metric=Metric.ERROR_RATE, max=math.nan),)}, "min or max"),
        ({"gates": (Gate(metric=Metric.UPDATE_SUCCESS, max=1),)}, "min between"),
        ({"gates": (Gate(metric=Metric.UPDATE_SUCCESS, min=1.1),)}, "min between"),
    ],
)
def test_what_is_wrong_with_a_spec_is_said(change, problem):
    assert problem in spec_problem(replace(SPEC, **change))
    assert isinstance(decide_create(replace(SPEC, **change), RECORD, devices=SOME, active={}), Refused)


def test_selectors_join_and_never_widen():
    assert joined_selector({"site": "kiel"}, {"ring": "1"}) == {"site": "kiel", "ring": "1"}
    assert joined_selector({"site": "kiel"}, {"site": "kiel"}) == {"site": "kiel"}
    answer = joined_selector({"site": "kiel"}, {"site": "bonn"})
    assert answer == Refused(reason="label site is kiel in the fleet but bonn in the selector")
