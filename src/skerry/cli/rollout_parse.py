# SPDX-License-Identifier: Apache-2.0
"""`--gate`, `--stages` and the model's name as people write them, into the wire's structs."""

from __future__ import annotations

import re
from typing import Any

import click

from skerry.cli.params import parse_labels
from skerry.wire.v1.operator import Gate, Metric, StageSpec

_GATE = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=)\s*([0-9.]+)\s*(%|ms)?\s*")
_STAGE = re.compile(r"(?:(?P<name>[a-z0-9][a-z0-9-]*):)?(?P<limit>[^:]+)")
_HUNDRED = 100.0

UNITS = {
    Metric.UPDATE_SUCCESS: "%",
    Metric.LATENCY_P95_MS: "ms",
    Metric.ERROR_RATE: "%",
    Metric.AGREEMENT: "%",
    Metric.CONFIDENCE_SHIFT: "",
    Metric.SHADOW_LATENCY_RATIO: "",
    Metric.SHADOW_ERROR_RATE: "%",
    Metric.CANARY_LATENCY_RATIO: "",
    Metric.CANARY_ERROR_RATE: "%",
}
"""How a metric is written: a share between 0 and 1, milliseconds, or a plain number."""


def parse_gate(text: str) -> Gate:
    """`latency_p95_ms<=10`, `error_rate<=1%`, `update_success>=0.98`. Raises click.BadParameter."""
    match = _GATE.fullmatch(text)
    if not match or match[1] not in list(Metric):
        metrics = ", ".join(Metric)
        raise click.BadParameter(f"{text!r} is no gate; write METRIC<=VALUE or METRIC>=VALUE with one of {metrics}")
    metric, value = Metric(match[1]), _value(match[3], text)
    unit = UNITS[metric]
    if match[4] and match[4] != unit:
        raise click.BadParameter(f"{text!r}: {metric} is not measured in {match[4]}")
    if match[4] == "%":
        value /= _HUNDRED
    if unit == "%" and value > 1:
        raise click.BadParameter(f"{text!r}: {metric} lies between 0 and 1; write {match[3]}% or a fraction")
    return Gate(metric=metric, max=value) if match[2] == "<=" else Gate(metric=metric, min=value)


def _value(digits: str, text: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise click.BadParameter(f"{text!r}: {digits!r} is no number") from None


def parse_stages(text: str, *, soak_seconds: float) -> tuple[StageSpec, ...]:
    """`1,25%,rest`, `canary:1,line=body-shop,rest`: counts, percents, labels (`+` joins several), the rest.

    Raises click.BadParameter.
    """
    stages = tuple(
        _stage(item.strip(), number, soak_seconds) for number, item in enumerate(text.split(","), 1) if item.strip()
    )
    if not stages:
        raise click.BadParameter("no stages")
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise click.BadParameter(f"{text!r}: two stages have the same name")
    if any(_is_rest(stage) for stage in stages[:-1]):
        raise click.BadParameter(f"{text!r}: after `rest` nothing is left for another stage")
    return stages


def _stage(item: str, number: int, soak_seconds: float) -> StageSpec:
    match = _STAGE.fullmatch(item)
    if not match:
        raise click.BadParameter(f"{item!r} is no stage; write a count, a percentage, key=value or rest")
    limit = match["limit"]
    name = match["name"] or ("rest" if limit == "rest" else f"stage-{number}")
    return StageSpec(name=name, soak_seconds=soak_seconds, **_limit(limit))


def _limit(limit: str) -> dict[str, Any]:
    if limit == "rest":
        return {}
    if "=" in limit:
        return {"labels": parse_labels(limit.split("+"))}
    if re.fullmatch(r"\d+", limit) and int(limit) > 0:
        return {"count": int(limit)}
    if re.fullmatch(r"\d+(\.\d+)?%", limit) and 0 < float(limit[:-1]) <= _HUNDRED:
        return {"percent": float(limit[:-1])}
    raise click.BadParameter(f"{limit!r} is no stage; write a count, a percentage up to 100%, key=value or rest")


def _is_rest(stage: StageSpec) -> bool:
    return stage.count is None and stage.percent is None and not stage.labels


def canary_stages(count: int, *, soak_seconds: float) -> tuple[StageSpec, ...]:
    return (
        StageSpec(name="canary", count=count, soak_seconds=soak_seconds),
        StageSpec(name="rest", soak_seconds=soak_seconds),
    )


def check_model_name(text: str) -> str:
    """[LINE/]MODEL:VERSION as given. Raises click.BadParameter."""
    name = text.removeprefix("model/") if text.count("/") > 1 else text
    if not re.fullmatch(r"([^/:]+/)?[^/:]+:[^/:]+", name):
        raise click.BadParameter(f"{text!r} names no version; write MODEL:VERSION or LINE/MODEL:VERSION")
    return name
