# SPDX-License-Identifier: Apache-2.0
import contextlib
import math
import socket
import time

import pytest

from skerry.cli.top_figures import (
    Counts,
    Reading,
    Row,
    from_metrics,
    from_statistics,
    percentile,
    rows,
    samples,
    workloads,
)
from skerry.cli.top_screen import COLUMNS, figure, screen, table
from skerry.cli.top_sources import Watch, of_urls
from skerry.errors import CallInvalid
from skerry.observe.counters import ModelCounters
from skerry.observe.exposition import Family, render
from skerry.testing.clock import VirtualClock

KEY = ("digits", "1.0.0", "fp32")
METRICS = """\
# HELP skerry_inference_requests_total Requests answered with a result.
# TYPE skerry_inference_requests_total counter
skerry_inference_requests_total{model="digits",version="1.0.0",variant="fp32"} 100
skerry_inference_errors_total{model="digits",version="1.0.0",variant="fp32",code="SKY-6001"} 2
skerry_inference_errors_total{model="digits",version="1.0.0",variant="fp32",code="SKY-6002"} 3
skerry_inference_duration_seconds_bucket{model="digits",version="1.0.0",variant="fp32",le="0.001"} 90
skerry_inference_duration_seconds_bucket{model="digits",version="1.0.0",variant="fp32",le="+Inf"} 100
skerry_inference_duration_seconds_sum{model="digits",version="1.0.0",variant="fp32"} 0.5
skerry_requests_waiting 4
process_resident_memory_bytes 1048576
"""


def reading(at, models, **more):
    return Reading(at=at, models=models, **more)


def counts(**fields):
    return Counts(**{"latency": {}, **fields})


# --- reading -------------------------------------------------------------------------------------------------------------


def test_metrics_are_counted_by_model():
    models, waiting, resident = from_metrics(METRICS)
    assert (waiting, resident) == (4, 1.0)
    assert models == {KEY: counts(requests=100, errors=5, seconds=0.5, latency={0.001: 90.0, math.inf: 100.0})}


def test_workloads_behind_one_address_are_told_apart():
    box = METRICS.replace("{", '{workload="a",').replace("_waiting 4", '_waiting{workload="a"} 4')
    box += 'skerry_inference_requests_total{workload="b",model="digits",version="1.0.0",variant="fp32"} 7\n'
    box += 'process_resident_memory_bytes{workload="b"} 2097152\n'
    assert workloads(box) == ["a", "b"]
    assert from_metrics(box, "a")[0][KEY].requests == 100
    assert from_metrics(box, "a")[1] == 4
    assert from_metrics(box, "b") == ({KEY: counts(requests=7)}, None, 2.0)
    (row,) = rows("127.0.0.1:80", "serving", None, reading(1.0, {KEY: counts()}, workload="b"))
    assert row.workload == "b"


def test_what_our_server_writes_is_understood():
    counters = ModelCounters()
    counters.answer((0.004, 0.001, 0.002, 0.0, 2), rows=1, at=1.0)
    labels = dict(zip(("model", "version", "variant"), KEY, strict=True))
    families = [
        Family(name=f"skerry_inference_{name}", kind="histogram", help="-", samples=((labels, histogram),))
        for name, histogram in (("duration_seconds", counters.total), ("batch_requests", counters.batch))
    ]
    found = from_metrics(render(families).decode())[0][KEY]
    assert found.seconds == pytest.approx(0.004)
    assert (found.batch_sum, found.batch_count) == (2, 1)
    assert percentile(found.latency, 0.5) == pytest.approx(3.75, abs=1.3)


@pytest.mark.parametrize(
    "text", ["", "not metrics at all", "<html>", "name{a=} x", 'skerry_inference_requests_total{model="d"} NaNs']
)
def test_what_is_no_metric_is_passed_over(text):
    assert list(samples(text)) == []
    assert from_metrics(text)[0] == {}


def test_labels_may_hold_anything():
    (sample,) = samples('m{a="x\\"y",b="back\\\\slash, and = {}"} 1.5')
    assert sample == ("m", {"a": 'x"y', "b": "back\\slash, and = {}"}, 1.5)


def test_a_server_of_others_gives_its_statistics():
    document = {
        "model_stats": [
            {
                "name": "m",
                "version": "3",
                "inference_count": 40,
                "execution_count": 10,
                "inference_stats": {"success": {"count": 20, "ns": 2_000_000_000}, "fail": {"count": 1, "ns": 0}},
            }
        ]
    }
    found = from_statistics(document)["m", "3", ""]
    assert (found.requests, found.errors, found.seconds, found.batch_sum, found.batch_count) == (20, 1, 2.0, 40, 10)
    assert from_statistics({}) == {}


# --- windows -------------------------------------------------------------------------------------------------------------


def test_a_window_is_the_difference_of_two_readings():
    before = reading(10.0, {KEY: counts(requests=100, errors=1, refused=5, seconds=1.0, waited=0.1)}, cpu=5.0)
    later = counts(
        requests=300,
        errors=2,
        refused=9,
        seconds=2.0,
        waited=0.2,
        batch_sum=600,
        batch_count=200,
        latency={0.01: 200.0},
    )
    (row,) = rows("w", "serving", before, reading(12.0, {KEY: later}, cpu=6.0, rss_mib=70.0, waiting=3))
    assert (row.model, row.version, row.variant) == KEY
    assert (row.requests_per_second, row.errors_per_second, row.refused_per_second) == (100, 0.5, 2)
    assert (row.mean_ms, row.queue_ms, row.batch) == (5.0, 0.5, 3.0)
    assert (row.cpu_percent, row.rss_mib, row.waiting) == (50.0, 70.0, 3)
    assert row.p50_ms == pytest.approx(5.0)


def test_the_first_look_knows_no_rates():
    (row,) = rows("w", "serving", None, reading(1.0, {KEY: counts(requests=100)}))
    assert (row.requests_per_second, row.p50_ms, row.cpu_percent) == (None, None, None)


def test_a_server_that_began_anew_has_no_negative_rates():
    before = reading(1.0, {KEY: counts(requests=100)}, cpu=50.0)
    (row,) = rows("w", "serving", before, reading(2.0, {KEY: counts(requests=3)}, cpu=0.1))
    assert (row.requests_per_second, row.cpu_percent) == (None, None)


def test_an_idle_window_has_no_latency():
    before = reading(1.0, {KEY: counts(requests=5, latency={1.0: 5.0})})
    (row,) = rows("w", "serving", before, reading(2.0, {KEY: counts(requests=5, latency={1.0: 5.0})}))
    assert (row.requests_per_second, row.p50_ms, row.mean_ms) == (0.0, None, None)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1.0), (0.75, 1.5), (0.9, 1.8), (1.0, 2.0)])
def test_percentiles_are_linear_within_a_bucket(share, expected):
    assert percentile({0.001: 50.0, 0.002: 100.0, math.inf: 100.0}, share) == pytest.approx(expected)


def test_beyond_the_last_bound_the_last_bound_is_said():
    assert percentile({0.001: 10.0, math.inf: 100.0}, 0.99) == 1.0
    assert percentile({}, 0.5) is None


# --- screen --------------------------------------------------------------------------------------------------------------


def row(**changes):
    plain = {
        "workload": "weld",
        "state": "serving",
        "model": "weld-defect",
        "version": "1.5.1",
        "variant": "int8",
        "requests_per_second": 1234.0,
        "errors_per_second": 0.0,
        "refused_per_second": 0.5,
        "p50_ms": 0.25,
        "p95_ms": 3.456,
        "p99_ms": 12.34,
        "cpu_percent": 88.0,
        "rss_mib": 71.0,
    }
    return Row(**{**plain, **changes})


@pytest.mark.parametrize("width", [10, 24, 40, 60, 80, 100, 132, 200])
@pytest.mark.parametrize("height", [2, 4, 8, 24])
def test_nothing_is_wider_or_higher_than_the_window(width, height):
    many = [row(workload=f"workload-number-{number}", problem="something long " * 20) for number in range(30)]
    lines = screen("skerry top - press-1, agent 12, and a long title", many, width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_a_narrow_window_keeps_what_matters_most():
    header = table([row()], width=40, height=10)[0].split()
    assert header[:3] == ["WORKLOAD", "STATE", "REQ/S"]
    wide = table([row()], width=200, height=10)[0]
    assert all(column.header in wide for column in COLUMNS)


def test_rows_that_do_not_fit_are_counted():
    lines = table([row(workload=f"w{number}") for number in range(10)], width=80, height=5)
    assert (len(lines), lines[-1]) == (5, "... and 7 more")


def test_an_empty_machine_says_so():
    assert screen("title", [], width=80, height=24) == ["title", "", "no workload here"]


def test_names_cannot_drive_the_terminal():
    lines = screen("t\x1b[2J", [row(workload="evil\x1b]0;x\x07", problem="\x1b[31mred")], width=120, height=24)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.256, "0.26"),
        (3.4, "3.40"),
        (34.56, "34.6"),
        (345.6, "346"),
        (23_700, "23.7k"),
        (123_456, "123k"),
    ],
)
def test_figures_have_the_digits_that_matter(value, text):
    assert figure(value) == text


# --- sources -------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_a_row_and_no_error():
    overview = of_urls(["http://127.0.0.1:1", "unix:///nowhere/x.sock"])
    first, second = Watch(VirtualClock(0)).look(overview.places)
    assert (first.workload, first.state) == ("127.0.0.1:1", "no answer")
    assert (second.workload, second.state) == ("x.sock", "no answer")
    assert "refused" in first.problem


def test_one_that_hangs_keeps_no_other_waiting():
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        overview = of_urls([f"http://127.0.0.1:{each.getsockname()[1]}" for each in silent])
        begun = time.monotonic()
        rows = Watch(VirtualClock(0)).look(overview.places)
        assert time.monotonic() - begun < 5  # one after the other it would take a second each
    assert [row.problem for row in rows] == ["timed out"] * 6


def test_what_is_no_address_is_refused():
    with pytest.raises(CallInvalid):
        of_urls(["ftp://x"])


def test_top_has_to_know_where_to_look(shell):
    assert shell("top").code == 2
    assert shell("top --state x --url http://127.0.0.1:1").code == 2
