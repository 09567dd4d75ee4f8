# SPDX-License-Identifier: Apache-2.0
"""What a server says about itself and its models: metadata, configuration, statistics, metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from skerry.bundle.manifest import TensorSpec
from skerry.observe.counters import ModelCounters
from skerry.observe.exposition import Family
from skerry.observe.histogram import Histogram
from skerry.oip.messages import EXTENSIONS
from skerry.serve.served import Served

_CONFIG_TYPES: Final = {"BYTES": "TYPE_STRING"}
_NS: Final = 1_000_000_000

Document = dict[str, Any]


def server(version: str, extensions: Iterable[str] = EXTENSIONS) -> Document:
    return {"name": "skerry", "version": version, "extensions": list(extensions)}


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
        "parameters": {
            "variant": {"string_value": model.variant},
            "engine": {"string_value": served.engine.description},
            "scheduling": {"string_value": served.placement},
        },
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
        "execution_count": counters.runs,
        "inference_stats": {
            "success": _duration(counters.total),
            "fail": {"count": counters.failed.total(), "ns": 0},
            "queue": _duration(counters.queue),
            "compute_input": _duration(counters.codec),
            "compute_infer": _duration(counters.compute),
            # Reading and writing are one figure here; perf_analyzer ends itself unless the three counts agree.
            "compute_output": {"count": counters.compute.count, "ns": 0},
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


_COUNTERS: Final[tuple[tuple[str, str, Callable[[ModelCounters], float]], ...]] = (
    ("skerry_inference_requests_total", "Requests answered with a result.", lambda c: c.answered),
    ("skerry_inference_rows_total", "Rows in the requests answered.", lambda c: c.rows),
    (
        "skerry_inference_not_finite_total",
        "NaN or infinite values written as null in JSON answers.",
        lambda c: c.not_finite,
    ),
    ("skerry_probes_total", "Golden samples the idle runner sent itself.", lambda c: c.probes),
    ("skerry_probe_errors_total", "Probes answered wrongly or not at all.", lambda c: c.probe_errors),
)
_BY_CODE: Final[tuple[tuple[str, str, Callable[[ModelCounters], Counter[str]]], ...]] = (
    ("skerry_inference_errors_total", "Valid requests the server failed, by error code.", lambda c: c.failed),
    ("skerry_inference_refused_total", "Requests refused because they were wrong, by error code.", lambda c: c.refused),
)
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[ModelCounters], Histogram]], ...]] = (
    ("skerry_inference_duration_seconds", "From the last byte of a request to its answer.", lambda c: c.total),
    ("skerry_inference_queue_seconds", "Waiting for the model's turn.", lambda c: c.queue),
    ("skerry_inference_compute_seconds", "Inside the engine.", lambda c: c.compute),
    ("skerry_inference_codec_seconds", "Reading the request and writing its answer.", lambda c: c.codec),
    ("skerry_inference_batch_requests", "Requests that shared a run, once for each of them.", lambda c: c.batch),
)


def metrics(models: Iterable[Served], *, resident_bytes: int, connections: int, waiting: int) -> list[Family]:
    each = [(_labels(served), served.counters) for served in models]
    families = [
        Family(name=name, kind="counter", help=text, samples=tuple((labels, read(c)) for labels, c in each))
        for name, text, read in _COUNTERS
    ]
    families += [
        Family(name=name, kind="counter", help=text, samples=tuple(_by_code(each, count)))
        for name, text, count in _BY_CODE
    ]
    families += [
        Family(name=name, kind="histogram", help=text, samples=tuple((labels, pick(c)) for labels, c in each))
        for name, text, pick in _HISTOGRAMS
    ]
    return [
        *families,
        _gauge("skerry_connections", "Open connections.", connections),
        _gauge("skerry_requests_waiting", "Requests at or before the workers.", waiting),
        _gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes),
    ]


def _by_code(
    each: Iterable[tuple[dict[str, str], ModelCounters]], count: Callable[[ModelCounters], Counter[str]]
) -> Iterator[tuple[dict[str, str], int]]:
    for labels, counters in each:
        for code, number in sorted(count(counters).items()):
            yield {**labels, "code": code}, number


def _gauge(name: str, text: str, value: int) -> Family:
    return Family(name=name, kind="gauge", help=text, samples=(({}, value),))
