# SPDX-License-Identifier: Apache-2.0
"""A runner whose model's code has taken it over says what it likes to the agent: that ends no agent, and nobody else's runner."""

from __future__ import annotations

import json

import msgspec
import pytest

from skerry.agent.reconcile import Reason, TrialSeen, judge_trial
from skerry.agent.supervise.watch import FiguresWindow
from skerry.observe.comparison import heard
from skerry.observe.latency import LatencySketch
from skerry.wire.v1.device import Trial
from skerry.wire.v1.runner import Event, Figures, Loaded, TrialCounts

FIGURES = {
    "type": "figures",
    "window_seconds": 1.0,
    "requests": 1,
    "errors": 0,
    "latency_p50_ms": 1.0,
    "latency_p95_ms": 1.0,
    "latency_p99_ms": 1.0,
    "probes": 0,
    "rss_mib": 50.0,
}
COUNTS = {"type": "trial-counts", "path": "p", "asked": 10, "dropped": 0, "compared": 10, "agreed": 10}
HUGE = 10**400


def said(document: dict[str, object], **lies: object) -> bytes:
    return json.dumps({**document, **lies}).encode()


@pytest.mark.parametrize(
    "line",
    [
        said(FIGURES, requests=-1),
        said(FIGURES, errors=HUGE),
        said(FIGURES, probes=-5),
        said(FIGURES, window_seconds=-1),
        said(FIGURES, latency_p95_ms=1e308),
        said(FIGURES, rss_mib=-(10**9)),
        said(FIGURES).replace(b"50.0", b"1e999"),
        said(FIGURES, latency={"1000000": 5}),
        said(FIGURES, latency={"3": -5}),
        said(FIGURES, latency={"3": HUGE}),
        said(COUNTS, agreed=-1),
        said(COUNTS, asked=HUGE),
        said(COUNTS, problems={"timeout": -3}),
        said(COUNTS, shifts={"1000000": 3}),
        said(COUNTS, shifts={"3": HUGE}),
        said(COUNTS, shift_total=-(10**307)),
        b'{"type":"loaded","load_ms":1,"rss_mib":1e999,"engine":"e"}',
    ],
)
def test_figures_nobody_can_measure_are_not_understood(line):
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(line, type=Event)


def test_the_most_it_can_say_is_calculated_with():
    most = 2**53
    figures = msgspec.json.decode(
        said(FIGURES, requests=most, errors=most, rss_mib=1e12, latency={"5000": most, "-5000": most}), type=Event
    )
    assert isinstance(figures, Figures)
    sketch = LatencySketch(figures.latency)
    sketch.merge(sketch)
    assert sketch.quantile(0.95) > 0
    window = FiguresWindow(seconds=0.0)
    assert window.add(figures, workload="w", digest="d", variant="", rollout="") is not None
    counts = msgspec.json.decode(
        said(
            COUNTS,
            shifts={"500": most, "-500": most},
            shift_total=1e300,
            flips={"a" * 9000 + str(n): 1 for n in range(99)},
        ),
        type=Event,
    )
    assert isinstance(counts, TrialCounts)
    comparison = heard(counts)
    comparison.merge(heard(counts))
    assert comparison.shifts.quantile(0.95) is not None
    assert len(comparison.flips) <= 33
    assert max(map(len, comparison.flips)) <= 160
    assert isinstance(
        msgspec.json.decode(b'{"type":"loaded","load_ms":1,"rss_mib":1,"engine":"e"}', type=Event), Loaded
    )


@pytest.mark.parametrize("lie", [{"agreed": 99}, {"problems": {"timeout": 99, "gone": 99}}])
@pytest.mark.parametrize("elapsed", [1.0, 1000.0])
def test_a_part_larger_than_its_whole_is_no_more_than_the_whole(lie, elapsed):
    counts = msgspec.json.decode(said(COUNTS, **lie), type=TrialCounts)
    found = heard(counts)
    seen = TrialSeen(
        elapsed=elapsed, asked=found.asked, errors=found.errors, compared=found.compared, agreed=found.agreed
    )
    judged = judge_trial(Trial(min_samples=10), seen)
    assert judged.reason in {"", Reason.TRIAL_ERROR_RATE}
