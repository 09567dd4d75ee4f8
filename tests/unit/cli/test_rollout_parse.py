# SPDX-License-Identifier: Apache-2.0
import click
import pytest

from skerry.cli.rollout_parse import canary_stages, check_model_name, parse_gate, parse_stages
from skerry.cli.rollout_text import gate_text
from skerry.wire.v1.operator import Gate, Metric, StageSpec


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("latency_p95_ms<=10", Gate(metric=Metric.LATENCY_P95_MS, max=10.0)),
        ("latency_p95_ms <= 7.5ms", Gate(metric=Metric.LATENCY_P95_MS, max=7.5)),
        ("error_rate<=1%", Gate(metric=Metric.ERROR_RATE, max=0.01)),
        ("update_success>=0.98", Gate(metric=Metric.UPDATE_SUCCESS, min=0.98)),
        ("update_success>=98%", Gate(metric=Metric.UPDATE_SUCCESS, min=0.98)),
        ("agreement >= 0.98", Gate(metric=Metric.AGREEMENT, min=0.98)),
        ("confidence_shift<=1.5", Gate(metric=Metric.CONFIDENCE_SHIFT, max=1.5)),
        ("shadow_latency_ratio <= 1.2", Gate(metric=Metric.SHADOW_LATENCY_RATIO, max=1.2)),
        ("canary_error_rate<=1%", Gate(metric=Metric.CANARY_ERROR_RATE, max=0.01)),
    ],
)
def test_gates(text, gate):
    assert parse_gate(text) == gate
    assert parse_gate(gate_text(gate)) == gate


@pytest.mark.parametrize(
    "text",
    [
        "latency",
        "latency_p95_ms<10",
        "speed<=3",
        "update_success>=98",
        "error_rate<=3ms",
        "latency_p95_ms<=3%",
        "agreement>=98",
        "shadow_latency_ratio<=120%",
        "canary_latency_ratio<=3ms",
        "error_rate<=1.2.3",
        "",
    ],
)
def test_what_is_no_gate(text):
    with pytest.raises(click.BadParameter):
        parse_gate(text)


def test_stages():
    assert parse_stages("1,25%,rest", soak_seconds=5.0) == (
        StageSpec(name="stage-1", count=1, soak_seconds=5.0),
        StageSpec(name="stage-2", percent=25.0, soak_seconds=5.0),
        StageSpec(name="rest", soak_seconds=5.0),
    )
    assert parse_stages("canary:2, line=a+cell=3", soak_seconds=0.0) == (
        StageSpec(name="canary", count=2),
        StageSpec(name="stage-2", labels={"line": "a", "cell": "3"}),
    )
    assert canary_stages(3, soak_seconds=1.0) == parse_stages("canary:3,rest", soak_seconds=1.0)


@pytest.mark.parametrize("text", ["", ",", "0", "101%", "0%", "some", "rest,1", "a:1,a:2", "-1", "1:2:3", "line"])
def test_what_are_no_stages(text):
    with pytest.raises(click.BadParameter):
        parse_stages(text, soak_seconds=0.0)


def test_a_model_needs_its_version():
    assert check_model_name("weld:1.5.1") == "weld:1.5.1"
    assert check_model_name("body/weld:1.5.1") == "body/weld:1.5.1"
    assert check_model_name("model/body/weld:1.5.1") == "body/weld:1.5.1"
    for wrong in ("weld", "weld:", ":1", "a/b/c:1", "weld:1:2"):
        with pytest.raises(click.BadParameter):
            check_model_name(wrong)
