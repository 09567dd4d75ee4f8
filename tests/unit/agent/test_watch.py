# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.agent.reconcile import Soak
from skerry.agent.supervise.watch import CrashLog, FiguresWindow, SoakWatch
from skerry.wire.v1.runner import Figures

NAMES = {"workload": "w", "digest": "d", "variant": "v", "rollout": "r"}


def figures(*, requests: int = 0, errors: int = 0, p95: float = 1.0, probes: int = 0, seconds: float = 1.0) -> Figures:
    return Figures(
        window_seconds=seconds,
        requests=requests,
        errors=errors,
        latency_p50_ms=p95 / 2,
        latency_p95_ms=p95,
        latency_p99_ms=p95 * 2,
        probes=probes,
        rss_mib=1.0,
    )


def test_three_crashes_of_one_bundle_in_a_minute_are_a_loop():
    log = CrashLog()
    log.add(0.0, "a")
    log.add(30.0, "b")
    log.add(31.0, "a")
    assert not log.loops(60.0, "a")
    log.add(60.0, "a")
    assert log.loops(60.0, "a")
    assert not log.loops(60.0, "b")
    assert not log.loops(61.0, "a")


def test_pauses_grow_up_to_half_a_minute():
    log = CrashLog()
    pauses = []
    for number in range(10):
        log.add(float(number), "a")
        pauses.append(log.pause(float(number), "a"))
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_soak_adds_up():
    watch = SoakWatch(100.0)
    for p95 in (90.0, 2.0, 4.0):
        watch.add(figures(requests=10, errors=1, p95=p95))
    watch.crashed()
    assert watch.view(130.0) == Soak(elapsed=30.0, requests=30, errors=3, latency_p95_ms=4.0, crashes=1)


def test_errors_without_requests_are_failed_probes():
    watch = SoakWatch(0.0)
    watch.add(figures(probes=3, errors=1))
    assert watch.view(1.0).probe_failures == 1


def test_windows_in_which_nothing_was_measured_say_nothing_of_latency():
    watch = SoakWatch(0.0)
    watch.add(figures(p95=0.0))
    assert watch.view(1.0).latency_p95_ms is None


def test_windows_are_joined_and_never_look_better_than_they_were():
    window = FiguresWindow(seconds=3.0)
    assert window.add(figures(requests=30, p95=2.0), **NAMES) is None
    assert window.add(figures(p95=99.0, probes=1), **NAMES) is None
    report = window.add(figures(requests=10, errors=2, p95=6.0), **NAMES)
    assert report is not None
    assert (report.requests, report.errors, report.window_seconds, report.probes) == (40, 2, 3.0, 1)
    assert report.latency_p50_ms == pytest.approx((30 * 1.0 + 10 * 3.0) / 40)
    assert (report.latency_p95_ms, report.latency_p99_ms) == (6.0, 12.0)
    assert (report.workload, report.digest, report.variant, report.rollout) == ("w", "d", "v", "r")
    assert window.add(figures(), **NAMES) is None


def test_idle_device_reports_its_probes():
    report = FiguresWindow(seconds=1.0).add(figures(probes=1, p95=3.0), **NAMES)
    assert report is not None
    assert (report.requests, report.latency_p95_ms) == (0, 3.0)
