# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.observe.comparison import FLIPS_KEPT, OTHER_FLIPS, Comparison, Problem, Share, Shifts, heard
from skerry.wire.v1.runner import TrialCounts


@pytest.mark.parametrize(
    ("percent", "requests", "chosen"), [(100, 7, 7), (10, 100, 10), (33.3, 1000, 333), (0.5, 400, 2)]
)
def test_a_share_is_exact_and_evenly_spread(percent, requests, chosen):
    share = Share(percent)
    taken = [number for number in range(requests) if share.take()]
    assert len(taken) == chosen
    gaps = {later - earlier for earlier, later in itertools.pairwise(taken)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(st.lists(st.floats(-1e5, 1e5)))
def test_quantiles_of_shifts_are_within_a_tenth(values):
    shifts = Shifts()
    for value in values:
        shifts.add(value)
    for q in (0.0, 0.05, 0.5, 0.95, 1.0):
        measured = shifts.quantile(q)
        if not values:
            assert measured is None
            continue
        exact = sorted(values)[math.floor(q * (len(values) - 1))]
        assert measured == pytest.approx(exact, rel=0.11, abs=1e-4)


def test_a_shift_that_is_no_number_is_a_large_one_and_buckets_stay_few():
    shifts = Shifts()
    for value in (math.nan, math.inf, -math.inf, 1e300, 1e-300):
        shifts.add(value)
    assert shifts.count == 5
    assert shifts.quantile(1.0) == pytest.approx(1e6, rel=0.2)
    assert all(abs(bucket) < 240 for bucket in shifts.buckets)


def made(seed: int) -> Comparison:
    one = Comparison()
    for number in range(seed * 3):
        one.answered()
        one.add_rows(compared=1, agreed=number % 2)
        one.flip("a", str(number % 5))
        one.shifts.add(number - seed)
    one.failed(Problem.TIMEOUT)
    one.dropped += seed
    return one


def test_merging_adds_everything_up_and_the_wire_keeps_it():
    both = made(2)
    both.merge(made(5))
    told = both.told("/x")
    assert (told.asked, told.compared, told.dropped, told.problems) == (23, 21, 7, {"timeout": 2})
    again = heard(msgspec.json.decode(msgspec.json.encode(told), type=TrialCounts))
    assert again.told("/x") == told
    assert again.shifts.mean == pytest.approx(both.shifts.mean)


def test_only_so_many_pairs_of_classes_are_kept():
    one = Comparison()
    for number in range(FLIPS_KEPT + 100):
        one.flip("cat", str(number))
    assert len(one.flips) == FLIPS_KEPT + 1
    assert one.flips[OTHER_FLIPS] == 100


def test_a_problem_of_another_version_is_a_failure():
    assert heard(TrialCounts(path="", asked=1, dropped=0, compared=0, agreed=0, problems={"new": 1})).errors == 1
