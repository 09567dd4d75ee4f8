# SPDX-License-Identifier: Apache-2.0
"""Prometheus text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from skerry.observe.histogram import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric: its help text and a value, or a histogram, per set of labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[tuple[Labels, float | Histogram], ...]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _histogram(name: str, labels: Labels, histogram: Histogram) -> Iterable[str]:
    for bound, count in histogram.cumulative():
        yield _line(f"{name}_bucket", {**labels, "le": repr(bound)}, count)
    yield _line(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count)
    yield _line(f"{name}_sum", labels, histogram.total)
    yield _line(f"{name}_count", labels, histogram.count)


def render(families: Iterable[Family]) -> bytes:
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            if isinstance(value, Histogram):
                lines += _histogram(family.name, labels, value)
            else:
                lines.append(_line(family.name, labels, value))
    return ("\n".join(lines) + "\n").encode()
