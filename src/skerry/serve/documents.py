# SPDX-License-Identifier: Apache-2.0
"""What a server says about itself and its models: metadata, configuration, statistics, metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from skerry.bundle.manifest import TensorSpec
from skerry.observe.counters import Histogram
from skerry.observe.exposition import Family
from skerry.serve.inference import Served
from skerry.serve.protocol import EXTENSIONS

_CONFIG_TYPES: Final = {"BYTES": "TYPE_STRING"}
_NS: Final = 1_000_000_000

Document = dict[str, Any]


def server(version: str) -> Document:
    return {"name": "skerry", "version": version, "extensions": list(EXTENSIONS)}


def metadata(served: Served) -> Document:
    model = served.signature
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": model.platform,
        "inputs": [_tensor(spec) for spec in model.io.inputs],
        "outputs": [_tensor(spec) for spec in model.io.outputs],
    }


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)}


def config(served: Served) -> Document:
    """Triton's ModelConfig, as far as it is true of us. max_batch_size 0: shapes include the batch axis."""
    model = served.signature
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend,
        "max_batch_size": 0,
        "input": [_config_tensor(spec) for spec in model.io.inputs],
        "output": [_config_tensor(spec) for spec in model.io.outputs],
        "parameters": {"variant": {"string_value": model.variant}},
    }


def _config_tensor(spec: TensorSpec) -> Document:
    kind = _CONFIG_TYPES.get(spec.dtype, f"TYPE_{spec.dtype}")
    return {"name": spec.name, "data_type": kind, "dims": list(spec.shape)}


def statistics(models: Iterable[Served]) -> Document:
    return {"model_stats": [_statistics(served) for served in models]}


def _statistics(served: Served) -> Document:
    counters = served.counters
    nothing = {"count": 0, "ns": 0}
    return {
        "name": served.signature.name,
        "version": served.signature.version,
        "last_inference": int(counters.last_at * 1000),
        "inference_count": counters.rows,
        "execution_count": counters.answered,
        "inference_stats": {
            "success": _duration(counters.total),
            "fail": {"count": counters.failed.total(), "ns": 0},
            "queue": _duration(counters.queue),
            "compute_input": nothing,
            "compute_infer": _duration(counters.compute),
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [],
    }


def _duration(histogram: Histogram) -> Document:
    return {"count": histogram.count, "ns": int(histogram.total * _NS)}


def index(models: Iterable[Served]) -> list[Document]:
    return [
        {
            "name": served.signature.name,
            "version": served.signature.version,
            "state": "READY" if served.ready else "UNAVAILABLE",
            "reason": "",
        }
        for served in models
    ]


def _labels(served: Served) -> dict[str, str]:
    model = served.signature
    return {"model": model.name, "version": model.version, "variant": model.variant}


def metrics(models: Iterable[Served], *, resident_bytes: int, connections: int, waiting: int) -> list[Family]:
    each = [(_labels(served), served.counters) for served in models]
    return [
        Family(
            name="skerry_inference_requests_total",
            kind="counter",
            help="Requests answered with a result.",
            samples=tuple((labels, c.answered) for labels, c in each),
        ),
        Family(
            name="skerry_inference_rows_total",
            kind="counter",
            help="Rows in the requests answered.",
            samples=tuple((labels, c.rows) for labels, c in each),
        ),
        Family(
            name="skerry_inference_errors_total",
            kind="counter",
            help="Valid requests the server failed, by error code.",
            samples=tuple(
                ({**labels, "code": code}, count) for labels, c in each for code, count in sorted(c.failed.items())
            ),
        ),
        Family(
            name="skerry_inference_refused_total",
            kind="counter",
            help="Requests refused because they were wrong, by error code.",
            samples=tuple(
                ({**labels, "code": code}, count) for labels, c in each for code, count in sorted(c.refused.items())
            ),
        ),
        Family(
            name="skerry_inference_not_finite_total",
            kind="counter",
            help="NaN or infinite values written as null in JSON answers.",
            samples=tuple((labels, c.not_finite) for labels, c in each),
        ),
        Family(
            name="skerry_probes_total",
            kind="counter",
            help="Golden samples the idle runner sent itself.",
            samples=tuple((labels, c.probes) for labels, c in each),
        ),
        Family(
            name="skerry_probe_errors_total",
            kind="counter",
            help="Probes answered wrongly or not at all.",
            samples=tuple((labels, c.probe_errors) for labels, c in each),
        ),
        Family(
            name="skerry_inference_duration_seconds",
            kind="histogram",
            help="From the last byte of a request to its answer.",
            samples=tuple((labels, c.total) for labels, c in each),
        ),
        Family(
            name="skerry_inference_queue_seconds",
            kind="histogram",
            help="Waiting for the model's turn.",
            samples=tuple((labels, c.queue) for labels, c in each),
        ),
        Family(
            name="skerry_inference_compute_seconds",
            kind="histogram",
            help="Inside the engine.",
            samples=tuple((labels, c.compute) for labels, c in each),
        ),
        _gauge("skerry_connections", "Open connections.", connections),
        _gauge("skerry_requests_waiting", "Requests at or before the workers.", waiting),
        _gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes),
    ]


def _gauge(name: str, text: str, value: int) -> Family:
    return Family(name=name, kind="gauge", help=text, samples=(({}, value),))
