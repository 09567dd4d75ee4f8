# SPDX-License-Identifier: Apache-2.0
"""Open Inference Protocol datatypes and the numpy arrays that carry them.

BYTES travels as an object array of `bytes`. BF16 has no numpy type and is therefore not in the table.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from skerry.bundle.manifest import TensorSpec

Array = np.ndarray[Any, Any]

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
    "BYTES": np.dtype(object),
}
"""Datatype -> little-endian numpy type."""

PROTOCOL: Final[frozenset[str]] = frozenset({*NUMPY, "BF16"})
"""Every datatype the protocol knows, ours or not."""

_NAMES: Final = {dtype: name for name, dtype in NUMPY.items()}


def name_of(dtype: np.dtype[Any]) -> str | None:
    """The protocol's word for a numpy type; None when it has none."""
    return _NAMES.get(dtype.newbyteorder("<"))


def fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether an array of `shape` may stand where `spec` is declared: same rank, equal where not -1."""
    return len(shape) == len(spec.shape) and all(
        want in {-1, have} for have, want in zip(shape, spec.shape, strict=True)
    )
