# SPDX-License-Identifier: Apache-2.0
"""What must be known about an ONNX file before an engine opens it: is it one, and does it reach for other files?

Reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) of the messages in onnx.proto without
copying weights. onnxruntime resolves external data of a model given as bytes against the working directory, so a model
that names any is refused here, before it can make the process read a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from skerry.errors import ModelFileError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES: Final = 10
_TAG_END: Final = 1 << 32
_MAX_DEPTH: Final = 64

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_EXTERNAL: Final = 1  # TensorProto.DataLocation.EXTERNAL

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


def _missing(data: memoryview) -> str:
    """What the outermost message lacks, in words; empty when nothing."""
    seen = {number for number, _ in _fields(data)}
    if _MODEL_GRAPH not in seen or _MODEL_IR_VERSION not in seen:
        return "it is not an ONNX model"
    if _MODEL_OPSET not in seen:
        return "it names no operator set (opset_import)"
    return ""


def check(model: bytes, *, path: str) -> None:
    """Raises ModelFileError unless `model` is an ONNX file that names its operator set and is complete in itself."""
    view = memoryview(model)
    try:
        problem = _missing(view)
        if not problem and _reaches_out(view, "model"):
            problem = "its weights are in another file (external data); export it as one file"
    except _Malformed as error:
        raise ModelFileError(path=path, problem="it is not an ONNX model") from error
    if problem:
        raise ModelFileError(path=path, problem=problem)
