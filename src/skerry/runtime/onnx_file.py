# SPDX-License-Identifier: Apache-2.0
"""What must be known about an ONNX file before an engine opens it: is it one, and does it reach for other files?

Reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) of the messages in onnx.proto without
copying weights. onnxruntime resolves external data of a model given as bytes against the working directory, so what a model
names is looked at here, before it can make the process read a file: weights of the main graph may lie in files beside the
model, nothing else may.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from skerry.errors import ModelFileError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES: Final = 10
_TAG_END: Final = 1 << 32
_MAX_DEPTH: Final = 64

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_DOMAIN: Final = 1
_GRAPH_INITIALIZER: Final = 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 1, 2, 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_EXTERNAL: Final = 1  # TensorProto.DataLocation.EXTERNAL
_EXTERNAL_KEYS: Final = frozenset({"location", "offset", "length", "checksum"})
_MAX_DIGITS: Final = 15

_BITS: Final = {
    **dict.fromkeys((21, 22, 23), 4),  # UINT4, INT4, FLOAT4E2M1, by number of TensorProto.DataType
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),  # UINT8, INT8, BOOL, the kinds of FLOAT8
    **dict.fromkeys((4, 5, 10, 16), 16),  # UINT16, INT16, FLOAT16, BFLOAT16
    **dict.fromkeys((1, 6, 12), 32),  # FLOAT, INT32, UINT32
    **dict.fromkeys((7, 11, 13, 14), 64),  # INT64, DOUBLE, UINT64, COMPLEX64
    15: 128,  # COMPLEX128
}

# Where each message can hold a tensor, directly or further down: message -> field number -> message.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {_MODEL_GRAPH: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
}


class _Malformed(Exception):
    """The bytes are not protobuf of the expected shape."""


class _Refused(Exception):
    """Why, in words."""


@dataclass(frozen=True, kw_only=True)
class External:
    """Weights that lie in another file: `size` bytes from `offset` of `location`, a path below the model's folder."""

    tensor: str
    location: str
    offset: int
    size: int


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if at >= len(data):
            raise _Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
    raise _Malformed


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value): an int for varints, the bytes for length-delimited; fixed-width fields give 0."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag >= _TAG_END:  # protobuf would take the lower 32 bits: another field than we see
            raise _Malformed
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise _Malformed
        if at + size > len(data):
            raise _Malformed
        yield tag >> 3, data[at : at + size] if kind == _BYTES else 0
        at += size


def _reaches_out(data: memoryview, message: str, depth: int = 0) -> bool:
    """Whether a tensor anywhere below keeps its data outside the file."""
    if depth > _MAX_DEPTH:
        raise _Malformed
    children = _CHILDREN.get(message, {})
    for number, value in _fields(data):
        if message == "tensor":
            if number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == _EXTERNAL):
                return True
        elif number in children and isinstance(value, memoryview) and _reaches_out(value, children[number], depth + 1):
            return True
    return False


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(value).decode() if isinstance(value, memoryview) else ""
    except UnicodeDecodeError as error:
        raise _Malformed from error


def _externals(model: memoryview) -> Iterator[External]:
    """Of the main graph's weights. Raises _Refused for data outside anywhere else."""
    for number, value in _fields(model):
        child = _CHILDREN["model"].get(number)
        if child is None or not isinstance(value, memoryview):
            continue
        if child != "graph":
            _stays_inside(value, child)
            continue
        for part, inner in _fields(value):
            kind = _CHILDREN["graph"].get(part)
            if kind is None or not isinstance(inner, memoryview):
                continue
            if part != _GRAPH_INITIALIZER:
                _stays_inside(inner, kind)
            elif _reaches_out(inner, "tensor"):
                yield _external(inner)


def _stays_inside(data: memoryview, message: str) -> None:
    if _reaches_out(data, message, 1):
        raise _Refused(
            "a node keeps data in another file (external data); only weights of the graph itself may be in one"
        )


def _external(tensor: memoryview) -> External:
    name, kind, declared, dims = "", 0, False, list[int]()
    entries: dict[str, str] = {}
    for number, value in _fields(tensor):
        match number:
            case _ if number == _TENSOR_NAME:
                name = _text(value)
            case _ if number == _TENSOR_TYPE and isinstance(value, int):
                kind = value
            case _ if number == _TENSOR_DIMS:
                dims += [value] if isinstance(value, int) else list(_varints(value))
            case _ if number == _TENSOR_DATA_LOCATION:
                declared = value == _EXTERNAL
            case _ if number == _TENSOR_EXTERNAL_DATA and isinstance(value, memoryview):
                _take_entry(entries, value)
    if not declared:
        raise _Refused(f"{name} names a file for its data and does not say that it is used")
    size = math.prod(dims) * _BITS.get(kind, 0) // 8
    if kind not in _BITS or "location" not in entries:
        raise _Refused(f"{name} does not say where its data are")
    if "length" in entries and _number(entries["length"]) != size:
        raise _Refused(f"{name} says it has {entries['length']} bytes, its shape needs {size}")
    return External(
        tensor=name, location=_inside(entries["location"]), offset=_number(entries.get("offset", "0")), size=size
    )


def _take_entry(entries: dict[str, str], data: memoryview) -> None:
    fields = {number: _text(value) for number, value in _fields(data)}
    key = fields.get(_ENTRY_KEY, "")
    if key in entries or key not in _EXTERNAL_KEYS:
        raise _Refused(f"external data with {'two' if key in entries else 'an unknown'} {key!a}")
    entries[key] = fields.get(_ENTRY_VALUE, "")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise _Refused(f"external data at {text!a}")
    return int(text)


def _inside(location: str) -> str:
    """A plain relative path; nothing that a path library, the engine and the kernel could read differently."""
    parts = PurePosixPath(location).parts
    if not location or set(location) & {"\0", "\\", "*"} or location != "/".join(parts) or ".." in parts:
        raise _Refused(f"its weights are in {location!a}, which is not a path below the model's folder")
    return location


def _opsets(model: memoryview) -> Iterator[str]:
    """Domains of the operator sets the model names."""
    for number, value in _fields(model):
        if number == _MODEL_OPSET and isinstance(value, memoryview):
            domain = next((_text(inner) for field, inner in _fields(value) if field == _OPSET_DOMAIN), "")
            yield "" if domain == "ai.onnx" else domain


def _missing(data: memoryview) -> str:
    """What the outermost message lacks, in words; empty when nothing."""
    seen = {number for number, _ in _fields(data)}
    if _MODEL_GRAPH not in seen or _MODEL_IR_VERSION not in seen:
        return "it is not an ONNX model"
    if _MODEL_OPSET not in seen:
        return "it names no operator set (opset_import)"
    domains = list(_opsets(data))
    if len(set(domains)) != len(domains):
        return "it names an operator set twice"
    return ""


def check(model: bytes, *, path: str) -> tuple[External, ...]:
    """The weights that lie in other files. Raises ModelFileError unless `model` is an ONNX file that names its operator sets
    and reaches for nothing but files below its own folder.
    """
    view = memoryview(model)
    try:
        problem = _missing(view)
        if not problem:
            return tuple(_externals(view))
    except _Malformed as error:
        raise ModelFileError(path=path, problem="it is not an ONNX model") from error
    except _Refused as error:
        raise ModelFileError(path=path, problem=str(error)) from error
    raise ModelFileError(path=path, problem=problem)
