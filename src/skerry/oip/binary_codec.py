# SPDX-License-Identifier: Apache-2.0
"""Tensors as bytes: little-endian, row-major, unpadded; BOOL one byte; BYTES per element u32 length + bytes."""

from __future__ import annotations

import math
import struct
import sys
from typing import Final

import numpy as np

from skerry.errors import InferenceRequestInvalid
from skerry.runtime.datatypes import NUMPY, Array

_LENGTH: Final = struct.Struct("<I")
_AS_IT_IS: Final = "<|=" if sys.byteorder == "little" else "<|"


def _bad(name: str, problem: str) -> InferenceRequestInvalid:
    return InferenceRequestInvalid(problem=f"input {name}: {problem}")


def decode_tensor(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """A read-only view of `data` where its alignment allows, else a copy. Raises InferenceRequestInvalid."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return _decode_strings(name, count, memoryview(data)).reshape(shape)
    dtype = NUMPY[datatype]
    if len(data) != count * dtype.itemsize:
        raise _bad(name, f"{len(data)} bytes where shape {list(shape)} of {datatype} needs {count * dtype.itemsize}")
    array: Array = np.ndarray(shape, dtype, data) if count else np.empty(shape, dtype)
    if datatype == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise _bad(name, "a BOOL is one byte, 0 or 1")
    return array if array.flags.aligned else array.copy()


def _decode_strings(name: str, count: int, data: memoryview) -> Array:
    if count * _LENGTH.size > len(data):
        raise _bad(name, f"{len(data)} bytes cannot hold {count} BYTES elements")
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise _bad(name, "BYTES data ends inside a length")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            raise _bad(name, "a BYTES element is longer than the data")
        elements.append(bytes(data[at : at + size]))
        at += size
    if len(elements) != count:
        raise _bad(name, f"{len(elements)} BYTES elements where the shape needs {count}")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array


def encode_tensor(array: Array) -> bytes:
    if array.dtype == object:
        return b"".join(_LENGTH.pack(len(value)) + value for value in array.ravel())
    if array.flags.c_contiguous and array.dtype.byteorder in _AS_IT_IS:
        return array.tobytes()
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
