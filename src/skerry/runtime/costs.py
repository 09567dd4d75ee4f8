# SPDX-License-Identifier: Apache-2.0
"""What a run of a model costs on this machine, alone and in a batch: measured at load, because it belongs to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np

from skerry.bundle.manifest import Io
from skerry.errors import InferenceFailed
from skerry.runtime.datatypes import Array
from skerry.runtime.engine import Engine

BATCH: Final = 8
"""Rows of the batch that is measured."""

_RUNS: Final = 7  # the median of so few is steady enough to tell 0.1 ms from 1 ms
_FEW_RUNS: Final = 3  # of what takes long: noise is a smaller part of it, and whoever starts a runner waits
_LONG: Final = 0.003
_WARM_UP_RUNS: Final = 2
_PATIENCE: Final = 0.5  # seconds a model may take for one run and still be measured in a batch
_SMALLEST: Final = 1e-7
_STEP: Final = 1.02  # to double the value takes 35 observations
_SAME: Final = 1e-4  # of a batched answer to the single one: optimised kernels differ by a few 1e-5


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Median seconds of a run on one sample, and per row in a batch of BATCH; 0 where it cannot be batched, with the reason."""

    one: float
    per_row: float = 0.0
    why_not: str = "not measured"


def scaled(costs: Costs, one: float) -> Costs:
    """As if a run had taken `one` seconds and everything else in proportion."""
    return replace(costs, one=one, per_row=costs.per_row * one / costs.one if costs.one else 0.0)


class Typical:
    """The median of what is observed, followed step by step (a stochastic approximation, Robbins and Monro 1951).

    An outlier moves it no further than any other value: one run that was interrupted says nothing about the next.
    """

    def __init__(self, start: float) -> None:
        self.value = max(start, _SMALLEST)

    def add(self, seconds: float) -> None:
        self.value *= _STEP if seconds > self.value else 1 / _STEP


def measure(engine: Engine, requests: Sequence[dict[str, Array]]) -> Costs:
    """`requests` are one or more different ones. Raises InferenceFailed when not even one runs."""
    one = _seconds(engine, requests[0])
    reason = _unbatchable(engine.io, requests)
    if not reason and one > _PATIENCE:
        reason = f"a run takes {one:.1f} s"
    if reason:
        return Costs(one=one, why_not=reason)
    return _batched(engine, requests, one)


def _batched(engine: Engine, requests: Sequence[dict[str, Array]], one: float) -> Costs:
    """Rows must differ: a model that mixes the rows of a batch may answer right when all of them are equal."""
    long = one > _LONG
    if len(requests) == 1:
        requests = [requests[0], {name: _empty(array) for name, array in requests[0].items()}]
    requests = requests[:2] if long else requests
    rows = list(islice(cycle(requests), BATCH))
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    try:
        begun = perf_counter()
        batch = engine.run(joined)
        once = perf_counter() - begun
        singles = [engine.run(row) for row in rows[: len(requests)]]  # the rest are the same again
        for at, single in enumerate(islice(cycle(singles), BATCH)):
            if not all(_equal(single[name], batch[name], at) for name in single):
                return Costs(one=one, why_not="answers in a batch differ from single ones")
        return Costs(one=one, per_row=(once if long else _seconds(engine, joined, warm_up=0)) / BATCH, why_not="")
    except InferenceFailed as error:
        return Costs(one=one, why_not=f"a batch does not run: {error}")


def _empty(array: Array) -> Array:
    return np.full(array.shape, b"", dtype=object) if array.dtype == object else np.zeros_like(array)


def _seconds(engine: Engine, inputs: dict[str, Array], *, warm_up: int = _WARM_UP_RUNS) -> float:
    for _ in range(warm_up):
        engine.run(inputs)
    times: list[float] = []
    while len(times) < (_FEW_RUNS if times and times[0] > _LONG else _RUNS):
        begun = perf_counter()
        engine.run(inputs)
        times.append(perf_counter() - begun)
    return median(times)


def _unbatchable(io: Io, requests: Sequence[dict[str, Array]]) -> str:
    if io.state:
        return "it carries state"
    for spec in (*io.inputs, *io.outputs):
        if not spec.shape or spec.shape[0] != -1:
            return f"the first axis of {spec.name} is not open"
    first = {name: array.shape for name, array in requests[0].items()}
    if not first or any(shape[0] != 1 for shape in first.values()):
        return "a sample is not one row"
    if any(array.shape != first[name] for request in requests for name, array in request.items()):
        return "samples differ in shape"
    return ""


def _equal(single: Array, batch: Array, at: int) -> bool:
    if single.shape[:1] != (1,) or batch.shape != (BATCH, *single.shape[1:]):
        return False
    if single.dtype.kind not in "fc":
        return bool((batch[at] == single[0]).all())
    return bool(np.allclose(batch[at], single[0], rtol=_SAME, atol=_SAME, equal_nan=True))
