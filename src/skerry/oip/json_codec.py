# SPDX-License-Identifier: Apache-2.0
"""Tensors as JSON: `data` of a request to an array, and back. Nothing is converted silently: 2.5 is no INT64, 1 is no BOOL."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import numpy as np
from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder, Encoder

from skerry.errors import InferenceRequestInvalid
from skerry.runtime.datatypes import NUMPY, Array

_MAX_DEPTH: Final = 16
_ELEMENT: Final[dict[str, type]] = {"BOOL": bool, "BYTES": str, "FP32": float, "FP64": float}
NO_JSON: Final = frozenset({"FP16", "BF16"})
_encoder: Final = Encoder()


@lru_cache(maxsize=128)
def _decoder(element: type, depth: int) -> Decoder[Any]:
    kind: Any = element
    for _ in range(depth):
        kind = list[kind]
    return Decoder(kind)


def _depth(data: memoryview) -> int:
    """How many brackets the value opens with."""
    depth = 0
    for byte in data:
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
        if depth > _MAX_DEPTH:
            break
    return depth


def decode_tensor(name: str, datatype: str, shape: tuple[int, ...], data: Raw | bytes) -> Array:
    """`data` flat, or nested exactly as `shape`; `datatype` has a JSON form. Raises InferenceRequestInvalid."""
    view = memoryview(data)
    depth = _depth(view)
    if not 1 <= depth <= _MAX_DEPTH:
        raise InferenceRequestInvalid(problem=f"input {name}: data must be an array of at most {_MAX_DEPTH} levels")
    if datatype != "BYTES":
        _check_count(name, view, math.prod(shape), shape)
    try:
        if datatype in _ELEMENT:
            array = _array(_decoder(_ELEMENT[datatype], depth).decode(view), datatype)
        else:
            array = _integers(view, datatype, depth)
    except (DecodeError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, DecodeError) and not isinstance(error, ValidationError):
            raise InferenceRequestInvalid(problem=f"the request is not valid: {error}") from error
        raise InferenceRequestInvalid(problem=f"input {name}: data does not fit {datatype}: {error}") from error
    return _shaped(name, array, shape, nested=depth > 1)


def _check_count(name: str, data: memoryview, count: int, shape: tuple[int, ...]) -> None:
    """More values than `shape` has are refused before each of them becomes an object of 24 bytes and more."""
    if count and (values := bytes(data).count(b",") + 1) > count:
        raise InferenceRequestInvalid(problem=f"input {name}: {values} values do not fit shape {list(shape)}")


def _integers(data: memoryview, datatype: str, depth: int) -> Array:
    """JSON has one kind of number: 225.0 and 2.25e2 are 225. Read exactly, for above 2^53 a float would be its neighbour too."""
    try:
        return np.array(_decoder(int, depth).decode(data), NUMPY[datatype])
    except ValidationError:
        _decoder(float, depth).decode(
            data
        )  # strings are decimals too, but no numbers; and no float has a million digits
        exact = np.array(_decoder(Decimal, depth).decode(data), dtype=object)
        if any(value != int(value) for value in exact.flat):
            raise
        return np.array([int(value) for value in exact.flat], NUMPY[datatype]).reshape(exact.shape)


def _array(values: list[Any], datatype: str) -> Array:
    if datatype == "FP32":
        try:
            with np.errstate(over="raise"):  # JSON has no infinity, so what would become one was a number too large
                return np.array(values, np.float32)
        except FloatingPointError as error:
            raise OverflowError("number out of range") from error
    if datatype == "BYTES":
        text = np.array(values, dtype=object)
        if not all(isinstance(value, str) for value in text.flat):  # numpy takes ragged lists of objects for objects
            raise ValueError("its lists differ in length")
        return np.array([value.encode() for value in text.flat], dtype=object).reshape(text.shape)
    return np.array(values, NUMPY[datatype])


def _shaped(name: str, array: Array, shape: tuple[int, ...], *, nested: bool) -> Array:
    if nested and array.shape != shape and array.size:
        raise InferenceRequestInvalid(
            problem=f"input {name}: data is nested as {list(array.shape)}, shape says {list(shape)}"
        )
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InferenceRequestInvalid(
            problem=f"input {name}: {array.size} values do not fit shape {list(shape)}"
        ) from error


def encode_tensor(name: str, array: Array) -> tuple[Raw, int]:
    """(flat JSON array, how many values were written as null because they are not finite).

    Raises InferenceRequestInvalid when JSON cannot carry the value: the client should have asked for binary.
    """
    if array.dtype == object:
        try:
            return Raw(_encoder.encode([value.decode() for value in array.ravel()])), 0
        except UnicodeDecodeError as error:
            raise InferenceRequestInvalid(
                problem=f"output {name}: bytes that are not UTF-8 have no JSON form, ask for binary data"
            ) from error
    text = _encoder.encode(array.ravel().tolist())
    return Raw(text), text.count(b"null") if array.dtype.kind == "f" else 0  # what NaN and infinities are written as
