# SPDX-License-Identifier: Apache-2.0
"""The three nets of the figures, with random weights and a free batch axis: a 30 us one, MobileNetV2 and ResNet18.

Architectures: Sandler et al. 2018 (MobileNetV2, table 2) and He et al. 2016 (ResNet, table 1), batch norms folded into the
convolutions as every deployed net has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving_bench.bare import session

Array = np.ndarray

_MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride of the first repeat."""

_RESNET = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
"""Channels and stride of each basic block."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """`x` is one request's input, `y` what the bare engine answers to it."""

    name: str
    file: Path
    x: Array
    y: Array


class _Net:
    """An ONNX graph under construction; methods return the name of what they add."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float) -> str:
        return self.constant((self._random.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, value: Array) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def dense(self, x: str, rows: int, columns: int) -> str:
        return self.add("Gemm", x, self.weight(rows, columns, scale=rows**-0.5), self.weight(columns, scale=0.01))

    def convolution(self, x: str, channels: tuple[int, int], size: int, *, stride: int = 1, groups: int = 1) -> str:
        given, made = channels
        each = given // groups
        weight = self.weight(made, each, size, size, scale=(2 / (each * size * size)) ** 0.5)
        return self.add(
            "Conv", x, weight, self.weight(made, scale=0.01), strides=[stride] * 2, pads=[size // 2] * 4, group=groups
        )

    def relu6(self, x: str) -> str:
        return self.add("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def classify(self, x: str, channels: int, classes: int) -> str:
        return self.dense(self.add("Flatten", self.add("GlobalAveragePool", x)), channels, classes)

    def write(self, file: Path, result: str, shape: tuple[int, ...], classes: int) -> None:
        self._nodes.append(helper.make_node("Identity", [result], ["output"]))
        graph = helper.make_graph(
            self._nodes,
            file.stem,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *shape])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", classes])],
            self._weights,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


def _mlp(file: Path) -> tuple[int, ...]:
    net, x, width = _Net(1), "input", 128
    for units in (512, 512, 512):
        x = net.add("Relu", net.dense(x, width, units))
        width = units
    net.write(file, net.dense(x, width, 10), (128,), 10)
    return (128,)


def _mobilenet(file: Path) -> tuple[int, ...]:
    net, channels = _Net(2), 32
    x = net.relu6(net.convolution("input", (3, 32), 3, stride=2))
    for expansion, made, repeats, first in _MOBILENET:
        for repeat in range(repeats):
            stride, hidden, y = first if repeat == 0 else 1, channels * expansion, x
            if expansion != 1:
                y = net.relu6(net.convolution(y, (channels, hidden), 1))
            y = net.relu6(net.convolution(y, (hidden, hidden), 3, stride=stride, groups=hidden))
            y = net.convolution(y, (hidden, made), 1)
            x = net.add("Add", x, y) if stride == 1 and channels == made else y
            channels = made
    x = net.relu6(net.convolution(x, (channels, 1280), 1))
    net.write(file, net.classify(x, 1280, 10), (3, 96, 96), 10)
    return (3, 96, 96)


def _resnet(file: Path) -> tuple[int, ...]:
    net, channels = _Net(3), 64
    x = net.add("Relu", net.convolution("input", (3, 64), 7, stride=2))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for made, stride in _RESNET:
        y = net.add("Relu", net.convolution(x, (channels, made), 3, stride=stride))
        y = net.convolution(y, (made, made), 3)
        if stride != 1 or channels != made:
            x = net.convolution(x, (channels, made), 1, stride=stride)
        x, channels = net.add("Relu", net.add("Add", x, y)), made
    net.write(file, net.classify(x, 512, 1000), (3, 224, 224), 1000)
    return (3, 224, 224)


_BUILDERS = {"mlp": _mlp, "mbv2": _mobilenet, "rn18": _resnet}
NAMES = tuple(_BUILDERS)


def make(name: str, folder: Path) -> Model:
    file = folder / f"{name}.onnx"
    shape = _BUILDERS[name](file)
    x = np.random.default_rng(7).standard_normal((1, *shape), np.float32)
    return Model(name=name, file=file, x=x, y=session(file).run(["output"], {"input": x})[0])
