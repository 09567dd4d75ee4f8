# SPDX-License-Identifier: Apache-2.0
"""Small LiteRT models for tests, built in memory with the schema the engine's wheel brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as tfl

TYPES = {
    "BOOL": tfl.TensorType.BOOL,
    "UINT8": tfl.TensorType.UINT8,
    "UINT16": tfl.TensorType.UINT16,
    "UINT32": tfl.TensorType.UINT32,
    "UINT64": tfl.TensorType.UINT64,
    "INT8": tfl.TensorType.INT8,
    "INT16": tfl.TensorType.INT16,
    "INT32": tfl.TensorType.INT32,
    "INT64": tfl.TensorType.INT64,
    "FP16": tfl.TensorType.FLOAT16,
    "FP32": tfl.TensorType.FLOAT32,
    "FP64": tfl.TensorType.FLOAT64,
    "BYTES": tfl.TensorType.STRING,
}
_NUMPY = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32", np.dtype(np.int8): "INT8"}


class Builder:
    """A model of one subgraph, piece by piece. Tensors are numbered in the order they are added."""

    def __init__(self) -> None:
        self.model = tfl.ModelT()
        self.model.version = 3
        self.model.buffers = [tfl.BufferT()]
        self.model.operatorCodes = []
        self.graph = tfl.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, name: str, kind: str, shape: Sequence[int]) -> int:
        """-1 = any length; the file then holds 1 there, and the signature of the shape beside it, as converters write it."""
        tensor = tfl.TensorT()
        tensor.name, tensor.type, tensor.buffer = name.encode(), TYPES[kind], 0
        tensor.shape = [max(axis, 1) for axis in shape]
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, array: np.ndarray) -> int:
        index = self.tensor(name, _NUMPY[array.dtype], array.shape)
        buffer = tfl.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def quantize(self, tensor: int, scale: Sequence[float], zero: Sequence[int], dimension: int = 0) -> None:
        quantization = tfl.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = list(scale), list(zero)
        quantization.quantizedDimension = dimension
        self.graph.tensors[tensor].quantization = quantization

    def operator(self, code: int, inputs: list[int], outputs: list[int], options: Any = None, custom: str = "") -> None:
        kind = tfl.OperatorCodeT()
        kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), 1
        if custom:
            kind.customCode = custom.encode()
        self.model.operatorCodes.append(kind)
        operator = tfl.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(tfl.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(operator)

    def sign(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """A signature with these names."""
        signature = tfl.SignatureDefT()
        signature.signatureKey = b"serving_default"
        signature.inputs, signature.outputs = _maps(inputs), _maps(outputs)
        self.model.signatureDefs = [*(self.model.signatureDefs or []), signature]

    def bytes(self, inputs: list[int], outputs: list[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _maps(names: dict[str, int]) -> list[Any]:
    maps = []
    for name, tensor in names.items():
        entry = tfl.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), tensor
        maps.append(entry)
    return maps


def _affine(builder: Builder, features: int, classes: int, bias: float) -> tuple[int, int]:
    weight = (np.arange(features * classes, dtype=np.float32) % 5 - 2).reshape(features, classes)
    x = builder.tensor("x", "FP32", [-1, features])
    w = builder.constant("w", np.ascontiguousarray(weight.T))
    b = builder.constant("b", np.full(classes, bias, np.float32))
    scores = builder.tensor("scores", "FP32", [-1, classes])
    builder.operator(tfl.BuiltinOperator.FULLY_CONNECTED, [x, w, b], [scores], tfl.FullyConnectedOptionsT())
    return x, scores


def affine(features: int = 4, classes: int = 3, *, bias: float = 0.0) -> bytes:
    """As the ONNX model of the same name."""
    builder = Builder()
    x, scores = _affine(builder, features, classes, bias)
    return builder.bytes([x], [scores])


def signed(source: str, target: str) -> bytes:
    """`affine` with a signature that has its own names."""
    builder = Builder()
    x, scores = _affine(builder, 4, 3, 0.0)
    builder.sign({source: x}, {target: scores})
    return builder.bytes([x], [scores])


def classifier(features: int = 4, classes: int = 3, *, bias: float = 0.0) -> bytes:
    """As the ONNX model of the same name."""
    builder = Builder()
    x, scores = _affine(builder, features, classes, bias)
    axis = builder.constant("axis", np.array(1, np.int32))
    label = builder.tensor("label", "INT64", [-1])
    options = tfl.ArgMaxOptionsT()
    options.outputType = tfl.TensorType.INT64
    builder.operator(tfl.BuiltinOperator.ARG_MAX, [scores, axis], [label], options)
    return builder.bytes([x], [scores, label])


def identity(kind: str, shape: Sequence[int] = (-1, 2)) -> bytes:
    """x -> y, unchanged; datatype in protocol words. A scalar must not be negative."""
    builder = Builder()
    x, y = builder.tensor("x", kind, shape), builder.tensor("y", kind, shape)
    if shape:
        target = builder.constant("shape", np.array(shape, np.int32))
        builder.operator(tfl.BuiltinOperator.RESHAPE, [x, target], [y], tfl.ReshapeOptionsT())
    else:
        builder.operator(tfl.BuiltinOperator.ABS, [x], [y], tfl.AbsOptionsT())
    return builder.bytes([x], [y])


def reshape() -> bytes:
    """x[N] FP32 in the shape s[1] INT32 says."""
    builder = Builder()
    x, s = builder.tensor("x", "FP32", [-1]), builder.tensor("s", "INT32", [1])
    y = builder.tensor("y", "FP32", [-1])
    builder.operator(tfl.BuiltinOperator.RESHAPE, [x, s], [y], tfl.ReshapeOptionsT())
    return builder.bytes([x, s], [y])


def quantized(*, dimension: int = 0, scales: int = 3, output_scale: float = 1.0) -> bytes:
    """x[N,4] INT8 -> scores[N,3] INT8, weights quantised per channel along `dimension` with `scales` scales."""
    builder = Builder()
    x = builder.tensor("x", "INT8", [-1, 4])
    weight = (np.arange(12, dtype=np.int8) % 5 - 2).astype(np.int8).reshape(3, 4)
    w, b = builder.constant("w", weight), builder.constant("b", np.zeros(3, np.int32))
    scores = builder.tensor("scores", "INT8", [-1, 3])
    builder.quantize(x, [1.0], [0])
    builder.quantize(w, [1.0] * scales, [0] * scales, dimension)
    builder.quantize(b, [1.0] * scales, [0] * scales)
    builder.quantize(scores, [output_scale], [0])
    builder.operator(tfl.BuiltinOperator.FULLY_CONNECTED, [x, w, b], [scores], tfl.FullyConnectedOptionsT())
    builder.model.operatorCodes[0].version = 4
    return builder.bytes([x], [scores])


def custom_operator() -> bytes:
    builder = Builder()
    x, y = builder.tensor("x", "FP32", [1, 2]), builder.tensor("y", "FP32", [1, 2])
    builder.operator(tfl.BuiltinOperator.CUSTOM, [x], [y], custom="AudioSpectrogramOfOurs")
    return builder.bytes([x], [y])
