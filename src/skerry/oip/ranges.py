# SPDX-License-Identifier: Apache-2.0
"""Values of inputs against the ranges a bundle declares. Pure; an input without a declared range may hold anything, NaN too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from skerry.bundle.manifest import TensorSpec
from skerry.errors import InferenceRequestInvalid
from skerry.runtime.datatypes import BF16, NUMPY, Array, narrow, widen


class Bounds(Struct, frozen=True, kw_only=True):
    """Smallest and largest value of the input `name`, rounded as its datatype rounds: 0.1 as FP32 is a bit more than 0.1."""

    name: str
    low: float
    high: float


def bounds_of(specs: Iterable[TensorSpec]) -> tuple[Bounds, ...]:
    """Of those that have a range and an order: not of BYTES."""
    return tuple(
        Bounds(
            name=spec.name, low=_held(spec.range[0], NUMPY[spec.dtype]), high=_held(spec.range[1], NUMPY[spec.dtype])
        )
        for spec in specs
        if spec.range is not None and spec.dtype in NUMPY and spec.dtype != "BYTES"
    )


def _held(limit: float, dtype: np.dtype[Any]) -> float:
    if dtype == BF16:
        return float(widen(narrow(np.array([limit], np.float32)))[0])
    if dtype.kind != "f":
        return limit
    with np.errstate(over="ignore"):  # a range wider than the datatype bounds nothing
        return float(dtype.type(limit))


def check(inputs: Mapping[str, Array], bounds: Iterable[Bounds]) -> None:
    """Raises InferenceRequestInvalid for an input with a value outside, or with NaN, which is nowhere inside."""
    for bound in bounds:
        array = widen(inputs[bound.name])
        if array.size and not (bound.low <= array.min().item() and array.max().item() <= bound.high):
            problem = f"input {bound.name}: values must be from {bound.low:g} to {bound.high:g}"
            raise InferenceRequestInvalid(problem=problem)
