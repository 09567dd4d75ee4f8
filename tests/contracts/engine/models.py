# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for tests, built in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Pair = tuple[str, int, list[Any]]
"""Name, TensorProto type, shape (None or a word = any length)."""


def build(nodes, inputs: list[Pair], outputs: list[Pair], initializers=(), *, opset: int = 17) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*pair) for pair in inputs],
        [helper.make_tensor_value_info(*pair) for pair in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def affine(features: int = 4, classes: int = 3, *, bias: float = 0.0) -> bytes:
    """x[N,features] FP32 -> scores[N,classes] FP32 = x @ W + bias, W fixed and small integers, so sums are exact."""
    weight = (np.arange(features * classes, dtype=np.float32) % 5 - 2).reshape(features, classes)
    return build(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["scores"]),
        ],
        [("x", TensorProto.FLOAT, ["N", features])],
        [("scores", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.full(classes, bias, np.float32), "b"),
        ],
    )


def affine_answer(x, features: int = 4, classes: int = 3, *, bias: float = 0.0):
    weight = (np.arange(features * classes, dtype=np.float32) % 5 - 2).reshape(features, classes)
    return np.asarray(x, np.float32) @ weight + np.float32(bias)


def classifier(features: int = 4, classes: int = 3, *, bias: float = 0.0) -> bytes:
    """As `affine`, and label[N] INT64 = the position of the largest score."""
    model = onnx.load_model_from_string(affine(features, classes, bias=bias))
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    return bytes(model.SerializeToString())


def heavy(megabytes: int = 1, classes: int = 10) -> bytes:
    """A classifier of about `megabytes` MB of weights: x[N,64] -> scores[N,classes]."""
    hidden = megabytes * 1024 * 1024 // 4 // (64 + classes)
    rng = np.random.default_rng(7)
    return build(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["scores"]),
        ],
        [("x", TensorProto.FLOAT, ["N", 64])],
        [("scores", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(rng.standard_normal((64, hidden), np.float32) / 8, "w1"),
            numpy_helper.from_array(rng.standard_normal((hidden, classes), np.float32) / 60, "w2"),
        ],
    )


def slow(rounds: int = 60, size: int = 512) -> bytes:
    """x[N,size] -> y[N,size] through `rounds` square matrix products: milliseconds of work on any machine."""
    weight = np.eye(size, dtype=np.float32)
    names = ["x", *(f"h{n}" for n in range(1, rounds)), "y"]
    return build(
        [
            node
            for n in range(rounds)
            for node in (
                helper.make_node("MatMul", [names[n], "w"], [f"m{n}"]),
                helper.make_node("Relu", [f"m{n}"], [names[n + 1]]),
            )
        ],
        [("x", TensorProto.FLOAT, ["N", size])],
        [("y", TensorProto.FLOAT, ["N", size])],
        [numpy_helper.from_array(weight, "w")],
    )


def accumulator() -> bytes:
    """x[1,2] -> sum[1,2] = x + before, which `after` gives back: the sum of all x where before <- after is state."""
    return build(
        [helper.make_node("Add", ["x", "before"], ["sum"]), helper.make_node("Identity", ["sum"], ["after"])],
        [("x", TensorProto.FLOAT, [1, 2]), ("before", TensorProto.FLOAT, [None, 2])],
        [("sum", TensorProto.FLOAT, [1, 2]), ("after", TensorProto.FLOAT, [1, 2])],
    )


def identity(kind: int, shape: list[Any] | None = None) -> bytes:
    """x -> y, unchanged, of any tensor type; shape [N,2] unless given."""
    shape = ["N", 2] if shape is None else shape
    return build([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, shape)], [("y", kind, shape)])


def identities(kinds: dict[str, int]) -> bytes:
    """For every name a tensor [1,2] of that type, given back as `name-out`."""
    return build(
        [helper.make_node("Identity", [name], [f"{name}-out"]) for name in kinds],
        [(name, kind, [1, 2]) for name, kind in kinds.items()],
        [(f"{name}-out", kind, [1, 2]) for name, kind in kinds.items()],
    )
