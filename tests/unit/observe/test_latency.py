# SPDX-License-Identifier: Apache-2.0
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.observe.latency import ACCURACY, LatencySketch

durations = st.lists(st.floats(1e-6, 3600), min_size=1, max_size=200)


def sketch_of(values):
    sketch = LatencySketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(durations, st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(values, q):
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    assert sketch_of(values).quantile(q) == pytest.approx(exact, rel=ACCURACY * 1.001)


@given(durations, durations)
def test_merging_equals_adding_everything_to_one(first, second):
    merged = sketch_of(first)
    merged.merge(sketch_of(second))
    whole = sketch_of(first + second)
    assert [merged.quantile(n / 20) for n in range(21)] == [whole.quantile(n / 20) for n in range(21)]
    assert merged.count == whole.count
    assert merged.total == pytest.approx(whole.total)


def test_nothing_added_gives_zero():
    assert LatencySketch().quantile(0.5) == 0.0


def test_zero_and_negative_durations_count_as_tiny_ones():
    sketch = sketch_of([0.0, -1.0])
    assert sketch.count == 2
    assert 0 < sketch.quantile(1.0) < 1.02e-7


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="not a duration"):
        LatencySketch().add(value)


def test_what_is_no_quantile_is_refused():
    with pytest.raises(ValueError, match="not a quantile"):
        LatencySketch().quantile(1.5)


def test_milliseconds():
    assert sketch_of([0.25]).quantile_ms(0.5) == pytest.approx(250, rel=ACCURACY)
