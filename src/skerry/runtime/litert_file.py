# SPDX-License-Identifier: Apache-2.0
"""What must be known about a LiteRT file before the interpreter opens it.

The interpreter checks the offsets of a file and trusts most of what stands at them: a wrong tensor number, a node that
writes to a constant or a quantised dimension the tensor has not got can end the process. Field numbers are those of
LiteRT's schema.fbs, in the order of its tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod
from typing import Final

from skerry.bundle.manifest import TensorSpec
from skerry.errors import ModelFileError
from skerry.runtime.datatypes import NUMPY
from skerry.runtime.flatbuffer import Malformed, Table

IDENTIFIER: Final = b"TFL3"
_IDENTIFIER_AT: Final = slice(4, 8)
_VERSION: Final = 3
_MAX_ELEMENTS: Final = 2**31
_LAST_OPERATOR: Final = 209
_OLD_CODES_END: Final = 127  # PLACEHOLDER_FOR_GREATER_OP_CODES: codes from here on are in the newer field

_SMALLEST_SCALE: Final = 2.0**-126  # of a normal float
_FIRST_OPTIONAL: Final = 2
_RECURRENT: Final = frozenset({"16", "44", "46", "52"})
"""LSTM and its sequence forms. Only they may be without their second input; elsewhere at most a bias is left out."""

_TYPE_NAMES: Final = (
    *("FP32", "FP16", "INT32", "UINT8", "INT64", "BYTES", "BOOL", "INT16", "COMPLEX64", "INT8", "FP64", "COMPLEX128"),
    *("UINT64", "RESOURCE", "VARIANT", "UINT32", "UINT16", "INT4", "BF16", "INT2", "UINT4", "FP8_E4M3FN", "FP8_E5M2"),
)
"""By number; the protocol's words where it has one."""

_BITS: Final = {
    **dict.fromkeys(("INT2",), 2),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    **dict.fromkeys(("UINT8", "BOOL", "INT8", "FP8_E4M3FN", "FP8_E5M2"), 8),
    **dict.fromkeys(("FP16", "INT16", "UINT16", "BF16"), 16),
    **dict.fromkeys(("FP32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("INT64", "COMPLEX64", "FP64", "UINT64"), 64),
    "COMPLEX128": 128,
}


class _Refused(Exception):
    """Why, in words."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of the first graph: what clients see, and which tensor of the graph it is."""

    spec: TensorSpec
    tensor: int


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file says of itself. `remembers`: it has variables, which keep what one run wrote for the next."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    remembers: bool


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    name: str
    kind: str
    shape: tuple[int, ...]  # -1 = any length
    constant: bool
    variable: bool


def is_litert(model: bytes) -> bool:
    return model[_IDENTIFIER_AT] == IDENTIFIER


def read(model: bytes, *, path: str) -> Contents:
    """Raises ModelFileError unless `model` is a LiteRT file whose graphs hold together.

    Custom operators are not judged here: the interpreter knows which it has, and refuses the others.
    """
    if not is_litert(model):
        raise ModelFileError(path=path, problem="it is not a LiteRT model")
    try:
        return _model(Table.root(model), len(model))
    except Malformed as error:
        raise ModelFileError(path=path, problem="the file is cut short or damaged") from error
    except _Refused as error:
        raise ModelFileError(path=path, problem=str(error)) from error


def _model(model: Table, size: int) -> Contents:
    version = model.scalar(0, "I")
    if version != _VERSION:
        raise _Refused(f"its schema has version {version}, not {_VERSION}")
    if model.length(8, 4) or model.length(9, 4):
        raise _Refused("its weights are in another file (external buffers); export it as one file")
    buffers = [_buffer(buffer, size) for buffer in model.tables(4)]
    operators = [_operator_code(code) for code in model.tables(1)]
    graphs = model.tables(2)
    if not graphs:
        raise _Refused("it has no graph")
    tensors = [_graph(graph, buffers, operators) for graph in graphs]
    for entry in model.tables(6):
        if entry.scalar(1, "I") >= len(buffers):
            raise _Refused("its metadata are in a buffer it has not got")
    signatures = [_signature(signature, tensors) for signature in model.tables(7)]
    named = signatures[0] if len(signatures) == 1 else ({}, {})
    return Contents(
        inputs=_ports("inputs", graphs[0].numbers(1, "i"), tensors[0], named[0]),
        outputs=_ports("outputs", graphs[0].numbers(2, "i"), tensors[0], named[1]),
        remembers=any(tensor.variable for graph in tensors for tensor in graph),
    )


def _ports(side: str, indices: tuple[int, ...], tensors: list[_Tensor], named: dict[int, str]) -> tuple[Port, ...]:
    """By the names of the signature when it names every tensor of the graph's side, else by those of the tensors."""
    if not indices:
        raise _Refused(f"it has no {side}")
    names = named if named.keys() == set(indices) else {index: tensors[index].name for index in indices}
    if len(set(names.values())) != len(names) or not all(names.values()):
        raise _Refused(f"two of its {side} have the same name, or one has none")
    for index in indices:
        if (
            tensors[index].kind not in NUMPY or tensors[index].kind == "BF16"
        ):  # numpy has no name for it to hand it over
            raise _Refused(f"{names[index]} is of type {tensors[index].kind}, which a request cannot carry")
    return tuple(
        Port(spec=TensorSpec(name=names[index], dtype=tensors[index].kind, shape=tensors[index].shape), tensor=index)
        for index in indices
    )


def _buffer(buffer: Table, size: int) -> int:
    """Bytes it holds."""
    offset, length = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")
    if offset > 1 and offset + length > size:  # beside the flatbuffer, for files over 2 GiB; 0 and 1 mean: not so
        raise _Refused("a buffer lies beyond the end of the file")
    return length if offset > 1 else buffer.length(0)


def _operator_code(code: Table) -> str:
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if not 0 <= number <= _LAST_OPERATOR or number == _OLD_CODES_END:
        raise _Refused(f"it needs operator {number}, which this engine does not know")
    return str(number)


def _graph(graph: Table, buffers: list[int], operators: list[str]) -> list[_Tensor]:
    tensors = [_tensor(tensor, buffers) for tensor in graph.tables(0)]
    inputs, outputs = graph.numbers(1, "i"), graph.numbers(2, "i")
    for index in (*inputs, *outputs):
        if not 0 <= index < len(tensors):
            raise _Refused(f"its graph names tensor {index}, it has {len(tensors)}")
    if len(set(inputs)) != len(inputs) or len(set(outputs)) != len(outputs):
        raise _Refused("an input or output appears twice")
    known = {index for index, tensor in enumerate(tensors) if tensor.constant or tensor.variable}
    if known & set(inputs):
        raise _Refused(f"its input {tensors[min(known & set(inputs))].name} is a constant")
    known |= set(inputs)
    for node in graph.tables(3):
        operator = node.scalar(0, "I")
        if operator >= len(operators):
            raise _Refused("a node names an operator that is not in its list")
        if -1 in node.numbers(1, "i")[:_FIRST_OPTIONAL] and operators[operator] not in _RECURRENT:
            raise _Refused("a node is without an input it needs")
        _node(node, tensors, known)
    missing = set(outputs) - known
    if missing:
        raise _Refused(f"nothing computes its output {tensors[min(missing)].name}")
    return tensors


def _node(node: Table, tensors: list[_Tensor], known: set[int]) -> None:
    """`known` are the tensors that have a value when its turn comes; its own are added. -1 = an input left out."""
    for index in node.numbers(1, "i"):
        if index != -1 and not 0 <= index < len(tensors):
            raise _Refused(f"a node reads tensor {index}, it has {len(tensors)}")
        if index != -1 and index not in known:
            raise _Refused(f"a node reads {tensors[index].name} before anything computes it (a cycle?)")
    for index in (*node.numbers(2, "i"), *(i for i in node.numbers(8, "i") if i != -1)):
        if not 0 <= index < len(tensors):
            raise _Refused(f"a node writes tensor {index}, it has {len(tensors)}")
        if index in known:
            raise _Refused(f"a node writes {tensors[index].name}, which has a value already")
        known.add(index)


def _tensor(tensor: Table, buffers: list[int]) -> _Tensor:
    name, number, shape = tensor.text(3), tensor.scalar(1, "b"), tensor.numbers(0, "i")
    if not 0 <= number < len(_TYPE_NAMES):
        raise _Refused(f"tensor {name} is of a type this engine does not know ({number})")
    if any(axis < 0 for axis in shape) or prod(shape) > _MAX_ELEMENTS:
        raise _Refused(f"tensor {name} has shape {list(shape)}")
    signature = tensor.numbers(7, "i")
    if signature and (len(signature) != len(shape) or any(axis < -1 for axis in signature)):
        raise _Refused(f"tensor {name} has shape {list(shape)} and the signature {list(signature)}")
    buffer = tensor.scalar(2, "I")
    if buffer >= len(buffers):
        raise _Refused(f"tensor {name} is in buffer {buffer}, the file has {len(buffers)}")
    kind, held = _TYPE_NAMES[number], buffers[buffer]
    if held and kind in _BITS and not tensor.has(6) and held < (prod(shape) * _BITS[kind] + 7) // 8:
        raise _Refused(f"tensor {name} of shape {list(shape)} has only {held} bytes of data")
    quantization = tensor.table(4)
    if quantization is not None:
        _quantization(quantization, name, shape, constant=bool(held))
    return _Tensor(
        name=name, kind=kind, shape=signature or shape, constant=bool(held), variable=bool(tensor.scalar(5, "B"))
    )


def _quantization(quantization: Table, name: str, shape: tuple[int, ...], *, constant: bool) -> None:
    values, zeros = quantization.numbers(2, "f"), quantization.length(3, 8)
    scales = len(values)
    if zeros not in {0, min(1, scales), scales}:
        raise _Refused(f"tensor {name} has {scales} scales and {zeros} zero points")
    for value in values:  # weights that are all zero may have a scale of zero
        if not (_SMALLEST_SCALE <= value < inf or (constant and value == 0)):
            raise _Refused(f"tensor {name} has the scale {value:g}")
    if scales <= 1:
        return
    dimension = quantization.scalar(6, "i")
    if not 0 <= dimension < len(shape):
        raise _Refused(f"tensor {name} of shape {list(shape)} is quantised along dimension {dimension}")
    if shape[dimension] != scales:
        raise _Refused(f"tensor {name} of shape {list(shape)} has {scales} scales along dimension {dimension}")


def _signature(signature: Table, graphs: list[list[_Tensor]]) -> tuple[dict[int, str], dict[int, str]]:
    """Names of inputs and of outputs by tensor; empty when it is not of the first graph."""
    graph = signature.scalar(4, "I")
    if graph >= len(graphs):
        raise _Refused(f"a signature is of graph {graph}, it has {len(graphs)}")
    sides = [{entry.scalar(1, "I"): entry.text(0) for entry in signature.tables(side)} for side in (0, 1)]
    if any(tensor >= len(graphs[graph]) for side in sides for tensor in side):
        raise _Refused("a signature names a tensor it has not got")
    return (sides[0], sides[1]) if graph == 0 else ({}, {})
