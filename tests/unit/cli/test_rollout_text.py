# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.cli.rollout_text import (
    changes,
    describe_rollout,
    gate_result_text,
    headline,
    plan_lines,
    status_lines,
    trouble_lines,
    value_text,
)
from skerry.wire.v1.operator import (
    Gate,
    GateResult,
    Metric,
    RolloutDevice,
    RolloutSpec,
    RolloutStatus,
    StageSpec,
    StageStatus,
)
from unit.cli.scripted import NOW, rollout, stage

SLOW = GateResult(metric=Metric.LATENCY_P95_MS, measured=14.2, max=10.0, passed=False)
OPEN = GateResult(metric=Metric.UPDATE_SUCCESS, measured=None, min=1.0)


def test_status_shows_stages_and_gates_measured_against_limits():
    view = rollout(RolloutStatus.RUNNING, stage(committed=1, gates=(SLOW, OPEN)), stage("rest", StageStatus.WAITING))
    assert status_lines(view) == [
        "rollout r1: weld-defect:1.5.1 running: 1/4 committed",
        "  canary       [##########          ] running  1/2 committed, 1 pending",
        "    gate latency_p95_ms <= 10.00: 14.20 FAILED",
        "    gate update_success >= 100%: not measured yet",
        "  rest         [                    ] waiting  0/2 committed",
    ]


@pytest.mark.parametrize(
    ("measured", "passed", "text"),
    [
        (7.368, True, "7.37 passed"),
        (7.368, None, "7.37 so far"),
        (70.0, False, "70.00 FAILED"),
        (None, True, "not measured"),
        (None, None, "not measured yet"),
        (None, False, "FAILED, not measured"),
    ],
)
def test_a_gate_passes_only_by_a_figure(measured, passed, text):
    gate = GateResult(metric=Metric.LATENCY_P95_MS, measured=measured, max=25.0, passed=passed)
    assert gate_result_text(gate) == f"latency_p95_ms <= 25.00: {text}"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (Metric.ERROR_RATE, 0.0005, "0.05%"),
        (Metric.UPDATE_SUCCESS, 0.9995, "99.95%"),
        (Metric.UPDATE_SUCCESS, 2 / 3, "66.67%"),
        (Metric.LATENCY_P95_MS, 0.001, "0.001"),
    ],
)
def test_a_small_figure_is_not_rounded_to_another_one(metric, value, text):
    assert value_text(metric, value) == text


def test_failures_stand_beside_what_was_committed():
    view = rollout(RolloutStatus.UNDOING, stage(failed=1), reason="too slow")
    assert headline(view) == "rollout r1: weld-defect:1.5.1 undoing: 0/2 committed, 1 failed: too slow"


def test_what_was_undone_is_not_shown_as_running():
    view = rollout(RolloutStatus.UNDONE, stage(committed=2, status=StageStatus.FAILED), reason="too slow")
    assert status_lines(view) == [
        "rollout r1: weld-defect:1.5.1 undone: 2/2 had committed: too slow",
        "  canary       [####################] failed   2/2 had committed",
    ]


def test_a_rollout_that_has_chosen_no_device_counts_none():
    view = rollout(RolloutStatus.RUNNING, stage(status=StageStatus.WAITING, total=0))
    assert status_lines(view) == [
        "rollout r1: weld-defect:1.5.1 running",
        "  canary       [                    ] waiting",
    ]


def test_two_gates_on_one_metric_are_two_gates():
    low = GateResult(metric=Metric.LATENCY_P95_MS, measured=5.0, min=1.0, passed=True)
    high = GateResult(metric=Metric.LATENCY_P95_MS, measured=5.0, max=10.0, passed=True)
    before = rollout(RolloutStatus.RUNNING, stage(gates=(low,)))
    lines = changes(before, rollout(RolloutStatus.RUNNING, stage(gates=(low, high))))
    assert [line for line in lines if "gate" in line] == ["    gate latency_p95_ms <= 10.00: 5.00 passed"]


def test_a_reason_cannot_drive_the_terminal():
    assert "\x1b" not in "".join(status_lines(rollout(reason="\x1b[31mfire")))


def test_changes_say_only_what_is_new():
    first = rollout(RolloutStatus.RUNNING, stage())
    assert changes(None, first)[0].startswith("rollout r1: weld-defect:1.5.1 running")
    assert changes(first, first) == []
    second = rollout(RolloutStatus.RUNNING, stage(committed=1))
    assert changes(first, second) == ["  canary       [##########          ] running  1/2 committed, 1 pending"]
    third = rollout(RolloutStatus.UNDOING, stage(committed=1, gates=(SLOW,)), reason="gate")
    assert changes(second, third) == [
        "rollout r1: weld-defect:1.5.1 undoing: 1/2 committed: gate",
        "  canary       [##########          ] running  1/2 committed, 1 pending",
        "    gate latency_p95_ms <= 10.00: 14.20 FAILED",
    ]
    assert changes(third, third) == []


def test_a_waiting_stage_is_not_news():
    assert len(changes(None, rollout(RolloutStatus.RUNNING, stage(), stage("rest", StageStatus.WAITING)))) == 2


def test_trouble_names_the_devices_that_did_not_make_it():
    devices = (
        RolloutDevice(device_id="1", name="a", stage=0, state="committed"),
        RolloutDevice(device_id="2", name="bb", stage=0, state="failed", reason="silent"),
    )
    assert trouble_lines(rollout(devices=devices)) == ["  bb  failed  silent"]
    assert trouble_lines(rollout()) == []


def test_describe():
    text = "\n".join(describe_rollout(rollout(), NOW))
    assert "Started:      1m30s ago by anna" in text
    assert "fleet body-shop" in text


def test_plan_says_everything_that_will_be_done():
    spec = RolloutSpec(
        workload="weld",
        bundle="weld:2",
        selector={"line": "a"},
        stages=(StageSpec(name="canary", count=1, soak_seconds=60.0), StageSpec(name="rest")),
        gates=(Gate(metric=Metric.ERROR_RATE, max=0.01),),
        deadline_seconds=600.0,
    )
    assert plan_lines(spec) == [
        "would roll weld:2 out as workload weld to devices with line=a",
        "  stage 1 canary: 1 device(s), watched for 1m",
        "  stage 2 rest: the rest, watched for 0s",
        "  gate error_rate <= 1%",
        "  each device: soak 30s, deadline 10m",
        "  on failure: undo",
    ]
