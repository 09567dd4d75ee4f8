# SPDX-License-Identifier: Apache-2.0
from skerry.observe.counters import ModelCounters
from skerry.observe.exposition import Family, render
from skerry.observe.histogram import Histogram

QUICK = (0.002, 0.0, 0.001, 0.0, 1)


def test_a_histogram_is_cumulative_and_a_bound_includes_itself():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert histogram.cumulative() == [(1.0, 2), (2.0, 3)]
    assert (histogram.count, histogram.total) == (4, 12.0)


def test_a_window_counts_once_and_starts_anew():
    counters = ModelCounters()
    counters.answer(QUICK, rows=3, not_finite=1, at=5.0)
    counters.failure("SKY-6005")
    counters.refusal("SKY-6001")
    window = counters.take_window()
    assert (window.requests, window.errors, window.probes, window.latency.count) == (2, 1, 0, 1)
    assert counters.take_window().requests == 0
    assert (counters.answered, counters.rows, counters.not_finite, counters.last_at) == (1, 3, 1, 5.0)
    assert counters.failed == {"SKY-6005": 1}
    assert counters.refused == {"SKY-6001": 1}


def test_latency_is_that_of_probes_only_while_nobody_calls():
    counters = ModelCounters()
    counters.probe(1.0, right=True)
    assert counters.take_window().latency.quantile(0.5) > 0.9
    counters.probe(1.0, right=True)
    counters.answer(QUICK, rows=1, not_finite=0, at=0.0)
    assert counters.take_window().latency.quantile(0.5) < 0.1


def test_a_wrong_probe_is_an_error_of_the_window():
    counters = ModelCounters()
    counters.probe(0.1, right=False)
    window = counters.take_window()
    assert (window.requests, window.errors, window.probes) == (0, 1, 1)
    assert counters.probe_errors == 1


def test_prometheus_text():
    histogram = Histogram((0.1,))
    histogram.add(0.05)
    text = render(
        [
            Family(name="a_total", kind="counter", help="How many.", samples=(({"model": 'x"\\\n'}, 3),)),
            Family(name="h", kind="histogram", help="How long.", samples=(({}, histogram),)),
        ]
    ).decode()
    assert text == (
        "# HELP a_total How many.\n# TYPE a_total counter\n"
        'a_total{model="x\\"\\\\\\n"} 3\n'
        "# HELP h How long.\n# TYPE h histogram\n"
        'h_bucket{le="0.1"} 1\nh_bucket{le="+Inf"} 1\nh_sum 0.05\nh_count 1\n'
    )
