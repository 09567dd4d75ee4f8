# SPDX-License-Identifier: Apache-2.0
"""From what servers count to what a window of time was like: two readings of `/metrics` or of `/v2/models/stats`. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)",?')
_NS: Final = 1e9
_MS: Final = 1000.0

Key = tuple[str, str, str]
"""Model, version, variant."""


class Counts(Struct, kw_only=True):
    """What one model counted since its server started. `latency`: upper bound in seconds -> requests at or below it."""

    requests: float = 0.0
    errors: float = 0.0
    refused: float = 0.0
    rows: float = 0.0
    runs: float = 0.0
    seconds: float = 0.0  # of all requests together
    waited: float = 0.0  # of these, before the model's turn
    batch_sum: float = 0.0
    batch_count: float = 0.0
    latency: dict[float, float] = {}


class Reading(Struct, frozen=True, kw_only=True):
    """`at` in monotonic seconds; `waiting` requests at this instant; `cpu` seconds and `rss_mib` of the process, if it can be seen.

    `workload`: what the server calls it, at the address of a box; empty elsewhere.
    """

    at: float
    models: dict[Key, Counts]
    workload: str = ""
    waiting: float | None = None
    cpu: float | None = None
    rss_mib: float | None = None


class Row(Struct, frozen=True, kw_only=True):
    """A model in the window between two readings; None where it could not be known. Percentiles are read off histogram bounds."""

    workload: str
    state: str
    model: str = ""
    version: str = ""
    variant: str = ""
    requests_per_second: float | None = None
    errors_per_second: float | None = None
    refused_per_second: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    queue_ms: float | None = None
    waiting: float | None = None
    batch: float | None = None
    cpu_percent: float | None = None
    rss_mib: float | None = None
    problem: str = ""


# --- reading -------------------------------------------------------------------------------------------------------------

_PLAIN: Final = {
    "skerry_inference_requests_total": "requests",
    "skerry_inference_rows_total": "rows",
    "skerry_inference_errors_total": "errors",
    "skerry_inference_refused_total": "refused",
    "skerry_inference_duration_seconds_sum": "seconds",
    "skerry_inference_queue_seconds_sum": "waited",
    "skerry_inference_batch_requests_sum": "batch_sum",
    "skerry_inference_batch_requests_count": "batch_count",
}


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each line of the Prometheus text format; lines that are none are passed over."""
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        labels = {name: _unescaped(content) for name, content in _LABEL.findall(match["labels"] or "")}
        yield match["name"], labels, value


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")


def workloads(text: str) -> list[str]:
    """Those that the label `workload` names: the address of a box has several processes' metrics in one text."""
    return sorted({labels["workload"] for _, labels, _ in samples(text) if "workload" in labels})


def from_metrics(text: str, workload: str = "") -> tuple[dict[Key, Counts], float | None, float | None]:
    """Counts by model, requests waiting, resident MiB, of one workload where several are told apart.

    Empty for a server that is not ours.
    """
    models: dict[Key, Counts] = {}
    waiting = resident = None
    for name, labels, value in samples(text):
        if labels.get("workload", "") != workload:
            continue
        if name == "skerry_requests_waiting":
            waiting = value
        elif name == "process_resident_memory_bytes":
            resident = value / 2**20
        elif "model" in labels and name.startswith("skerry_inference_"):
            key = (labels["model"], labels.get("version", ""), labels.get("variant", ""))
            _count(models.setdefault(key, Counts(latency={})), name, labels, value)
    return models, waiting, resident


def _count(counts: Counts, name: str, labels: Mapping[str, str], value: float) -> None:
    if name in _PLAIN:
        field = _PLAIN[name]
        setattr(counts, field, getattr(counts, field) + value)
    elif name == "skerry_inference_duration_seconds_bucket":
        bound = float(labels.get("le", "inf"))
        counts.latency[bound] = counts.latency.get(bound, 0.0) + value


def from_statistics(document: Mapping[str, Any]) -> dict[Key, Counts]:
    """The protocol's own statistics, which any server of it may give: no percentiles in them."""
    found: dict[Key, Counts] = {}
    for each in document.get("model_stats", []):
        stats = each.get("inference_stats", {})

        def of(part: str, field: str, stats: Mapping[str, Any] = stats) -> float:
            return float(stats.get(part, {}).get(field, 0))

        runs, rows = float(each.get("execution_count", 0)), float(each.get("inference_count", 0))
        found[str(each.get("name", "?")), str(each.get("version", "")), ""] = Counts(
            requests=of("success", "count"),
            errors=of("fail", "count"),
            rows=rows,
            runs=runs,
            seconds=of("success", "ns") / _NS,
            waited=of("queue", "ns") / _NS,
            batch_sum=rows,
            batch_count=runs,
        )
    return found


# --- windows -------------------------------------------------------------------------------------------------------------


def rows(workload: str, state: str, before: Reading | None, after: Reading) -> list[Row]:
    """One row per model. Without an earlier reading, or when the server began anew meanwhile, rates are not known yet."""
    span = after.at - before.at if before else 0.0
    cpu = None
    if before and before.cpu is not None and after.cpu is not None and span > 0 and after.cpu >= before.cpu:
        cpu = 100 * (after.cpu - before.cpu) / span
    found = []
    for (model, version, variant), counts in sorted(after.models.items()):
        earlier = before.models.get((model, version, variant)) if before else None
        window = _window(earlier, counts, span) if earlier and span > 0 else {}
        found.append(
            Row(
                workload=after.workload or workload,
                state=state,
                model=model,
                version=version,
                variant=variant,
                waiting=after.waiting,
                cpu_percent=cpu,
                rss_mib=after.rss_mib,
                **window,
            )
        )
    return found


def _window(before: Counts, after: Counts, span: float) -> dict[str, Any]:
    """Fields of a row that need two readings."""
    requests = after.requests - before.requests
    if requests < 0:  # another process under the same address
        return {}
    seen = {bound: count - before.latency.get(bound, 0.0) for bound, count in after.latency.items()}
    runs = after.batch_count - before.batch_count
    return {
        "requests_per_second": requests / span,
        "errors_per_second": max(0.0, after.errors - before.errors) / span,
        "refused_per_second": max(0.0, after.refused - before.refused) / span,
        "p50_ms": percentile(seen, 0.5),
        "p95_ms": percentile(seen, 0.95),
        "p99_ms": percentile(seen, 0.99),
        "mean_ms": _MS * (after.seconds - before.seconds) / requests if requests else None,
        "queue_ms": _MS * (after.waited - before.waited) / requests if requests else None,
        "batch": (after.batch_sum - before.batch_sum) / runs if runs > 0 else None,
    }


def percentile(cumulative: Mapping[float, float], share: float) -> float | None:
    """Milliseconds, linear within the bucket as Prometheus's histogram_quantile has it; None for an empty window."""
    bounds = sorted(cumulative)
    total = cumulative[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= rank:
            if math.isinf(bound):
                return lower * _MS
            inside = (rank - below) / (count - below) if count > below else 1.0
            return (lower + (bound - lower) * inside) * _MS
        lower, below = bound, count
    return lower * _MS
