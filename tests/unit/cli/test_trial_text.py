# SPDX-License-Identifier: Apache-2.0
from msgspec.structs import replace

from skerry.cli.logs import body_text
from skerry.cli.rollout_text import describe_rollout, status_lines
from skerry.wire.v1.device import TrialMode
from skerry.wire.v1.operator import RolloutDevice, RolloutStatus
from skerry.wire.v1.report import TrialReport
from unit.cli.scripted import NOW, rollout, stage

REPORT = TrialReport(
    workload="weld",
    digest="sha256:2",
    mode=TrialMode.SHADOW,
    finished=True,
    seconds=61.0,
    asked=1210,
    errors=1,
    compared=1209,
    agreed=1200,
    dropped=3,
    flips={"ok > burn": 7, "ok > \x1b[31mgap": 2},
    shift_mean=-0.012,
    shift_p05=-0.2,
    shift_p95=0.01,
    latency_p50_ms=0.8,
    latency_p95_ms=1.4,
    latency_ratio=1.25,
    reason="trial-latency",
    detail="1 x timeout",
)


def device(name: str, report: TrialReport | None) -> RolloutDevice:
    return RolloutDevice(device_id=name, name=name, stage=0, state="committed", trial=report)


def test_status_adds_the_trials_of_a_stage_up():
    other = replace(REPORT, finished=False, asked=90, errors=0, compared=91, agreed=91)
    view = rollout(RolloutStatus.RUNNING, stage(committed=1), devices=(device("a", REPORT), device("b", other)))
    assert "    trial by shadow: 1/2 over, 1300 requests, 1 errors, 99.31% of 1300 answers agree" in status_lines(view)
    assert not any("trial" in line for line in status_lines(rollout(RolloutStatus.RUNNING, stage(committed=1))))


def test_describe_shows_what_each_device_measured():
    view = rollout(RolloutStatus.RUNNING, stage(committed=1), devices=(device("press-1", REPORT), device("b", None)))
    lines = describe_rollout(view, NOW)
    at = lines.index("Trials:")
    assert lines[at + 1 : at + 4] == [
        (
            "  press-1: shadow failed, trial-latency after 1m1s: 1210 requests, 1 errors, 3 copies dropped, 1200 of 1209 answers"
            " agree, confidence -0.012 (-0.2 to +0.01), p50 0.8 ms, p95 1.4 ms = 1.25 x the current version's"
        ),
        "  press-1: changed: ok > burn (7), ok > ?[31mgap (2)",
        "  press-1: 1 x timeout",
    ]


def test_a_canary_has_nothing_to_compare():
    canary = replace(REPORT, mode=TrialMode.CANARY, compared=0, agreed=0, shift_mean=None, dropped=0, reason="")
    assert body_text(canary) == (
        "weld: trial by canary passed after 1m1s: 1210 requests, 1 errors, p50 0.8 ms, p95 1.4 ms = 1.25 x the current"
        " version's"
    )
