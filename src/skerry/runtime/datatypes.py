# SPDX-License-Identifier: Apache-2.0
"""Open Inference Protocol datatypes and the numpy arrays that carry them.

BYTES travels as an object array of `bytes`. BF16 has no numpy type: its 16 bits travel in a record type of our own, so that
nobody takes them for the UINT16 they would otherwise be. `widen` and `narrow` convert.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from skerry.bundle.manifest import TensorSpec

Array = np.ndarray[Any, Any]

BF16: Final[np.dtype[Any]] = np.dtype([("bf16", "<u2")])
"""The upper half of an FP32. `array.view("<u2")` gives the bits, `bits.view(BF16)` takes them."""

NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": BF16,
    "BYTES": np.dtype(object),
}
"""Datatype -> little-endian numpy type, for every datatype the protocol knows."""

_NAMES: Final = {dtype: name for name, dtype in NUMPY.items()}


def name_of(dtype: np.dtype[Any]) -> str | None:
    """The protocol's word for a numpy type; None when it has none."""
    return _NAMES.get(dtype.newbyteorder("<"))


def widen(array: Array) -> Array:
    """BF16 as the FP32 of the same value; any other array as it is."""
    if array.dtype != BF16:
        return array
    bits: Array = np.ascontiguousarray(array).view("<u2").astype("<u4") << 16
    return bits.view("<f4").reshape(array.shape)


def narrow(array: Array) -> Array:
    """FP32 as BF16, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4").astype("<u8")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    quiet: Array = np.where(np.isnan(array), bits >> 16 | 0x40, rounded).astype("<u2")
    return np.ascontiguousarray(quiet).view(BF16).reshape(array.shape)


def fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether an array of `shape` may stand where `spec` is declared: same rank, equal where not -1."""
    return len(shape) == len(spec.shape) and all(
        want in {-1, have} for have, want in zip(shape, spec.shape, strict=True)
    )
