# SPDX-License-Identifier: Apache-2.0
"""Small real ONNX models, built node by node."""

from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def linear_classifier(*, inputs: int = 4, classes: int = 3, seed: int = 1, hidden: int = 0) -> bytes:
    """scores = x @ W (through a hidden layer of `hidden` units when given), label = argmax; input `x` FP32 [-1, inputs]."""
    random = np.random.default_rng(seed)
    sizes = [inputs, hidden, classes] if hidden else [inputs, classes]
    nodes, weights, source = [], [], "x"
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        target = "scores" if layer == len(sizes) - 2 else f"hidden{layer}"
        value = random.standard_normal((rows, columns)).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [source, f"w{layer}"], [target], name=f"layer{layer}"))
        source = target
    nodes.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, inputs])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, classes]),
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))
