# SPDX-License-Identifier: Apache-2.0
"""Inputs of the self-test: read from the author's file, or made up from the io when there is none.

Made-up values come from a hash, not from a random generator: they must be the same on every machine and with every numpy,
or packing twice would give two digests.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from skerry.bundle.formats import NPZ_LIMIT
from skerry.bundle.manifest import Io, TensorSpec
from skerry.errors import InputMissing, ManifestError
from skerry.runtime.datatypes import BF16, NUMPY, Array, narrow

MADE_UP_COUNT: Final = 16
MADE_UP_BYTES: Final = 2 * 1024 * 1024
"""Unless the author asks for more, no more samples than fit this are made up: every device fetches them."""
_FULL_RANGE: Final = {"UINT8": (0.0, 255.0), "INT8": (-128.0, 127.0)}
_UNKNOWN_RANGE: Final = (0.0, 1.0)


def read_inputs(path: Path, io: Io, count: int | None) -> dict[str, Array]:
    """Arrays by input name from an `.npz` with `NAME` or `in.NAME`; others in it are left alone. First axis = sample.

    Raises InputMissing, ManifestError.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name.removeprefix("in."): archive[name] for name in archive.files if not name.startswith("out.")}
    except FileNotFoundError as error:
        raise InputMissing(path=str(path)) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ManifestError(problem=f"self-test samples {path}: {error}") from error
    if any(array.ndim and not len(array) for array in arrays.values()):
        raise ManifestError(problem=f"self-test samples {path}: an array without samples")
    missing = [spec.name for spec in io.inputs if spec.name not in arrays]
    if missing:
        raise ManifestError(problem=f"self-test samples {path}: no array for input {', '.join(missing)}")
    return {spec.name: _as_declared(arrays[spec.name], spec, path)[:count] for spec in io.inputs}


def _as_declared(array: Array, spec: TensorSpec, path: Path) -> Array:
    """In the model's datatype, where that loses nothing but float precision."""
    wanted = NUMPY[spec.dtype]
    if wanted == np.dtype(object):
        values = [value if isinstance(value, bytes) else str(value).encode() for value in array.ravel().tolist()]
        return np.array(values, dtype=object).reshape(array.shape)
    if array.ndim and array.dtype == wanted == BF16:
        return array
    if array.ndim and array.dtype.kind in "biuf":
        if wanted == BF16 and array.dtype.kind == "f":
            return narrow(array.astype(np.float32))
        with np.errstate(all="ignore"):  # what does not fit is found by casting back
            cast = array.astype(wanted)
            if array.dtype.kind == wanted.kind == "f" or np.array_equal(cast.astype(array.dtype), array):
                return cast
    raise ManifestError(problem=f"self-test samples {path}: {spec.name} is {array.dtype}, the model takes {spec.dtype}")


def make_up_inputs(io: Io, count: int | None) -> dict[str, Array]:
    """`count` samples within each input's declared range; axes of any length get length 1.

    Without a count: MADE_UP_COUNT, or as many as fit MADE_UP_BYTES, but at least one. Raises ManifestError when a bundle
    could not hold them.
    """
    size = sum(math.prod(_sample_shape(spec)) * NUMPY[spec.dtype].itemsize for spec in io.inputs)
    count = count or max(1, min(MADE_UP_COUNT, MADE_UP_BYTES // max(size, 1)))
    if count * size > NPZ_LIMIT:
        raise ManifestError(problem=f"{count} made-up samples of {size} bytes are more than {NPZ_LIMIT} bytes")
    return {spec.name: _made_up(spec, count) for spec in io.inputs}


def _sample_shape(spec: TensorSpec) -> tuple[int, ...]:
    batched = bool(spec.shape) and spec.shape[0] in {-1, 1}
    return tuple(max(axis, 1) for axis in (spec.shape[1:] if batched else spec.shape))


def _made_up(spec: TensorSpec, count: int) -> Array:
    shape = (count, *_sample_shape(spec))
    parts = _parts(spec.name, math.prod(shape))
    if spec.dtype == "BYTES":
        return np.array([b"%08x" % int(part * 2**32) for part in parts], dtype=object).reshape(shape)
    if spec.dtype == "BOOL":
        return (parts < 0.5).reshape(shape)  # noqa: PLR2004 - as many true as false
    low, high = spec.range or _FULL_RANGE.get(spec.dtype, _UNKNOWN_RANGE)
    kind = NUMPY[spec.dtype]
    if kind.kind in "iu":
        return (np.floor(parts * (high - low + 1)) + low).clip(low, high).astype(kind).reshape(shape)
    if kind == BF16:
        return narrow((low + parts * (high - low)).astype(np.float32)).reshape(shape)
    return (low + parts * (high - low)).astype(kind).reshape(shape)


def _parts(seed: str, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`count` numbers in [0, 1), evenly spread, the same for the same `seed` for ever."""
    stream = hashlib.shake_256(b"skerry self-test " + seed.encode()).digest(8 * count)
    return (np.frombuffer(stream, "<u8") >> 11).astype(np.float64) * 2.0**-53
