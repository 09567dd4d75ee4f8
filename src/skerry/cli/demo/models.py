# SPDX-License-Identifier: Apache-2.0
"""The demo's models: real training on real scans (scikit-learn's bundled digits), real ONNX, real int8 quantisation.

v1  trained on a quarter of the data: works, but not well
v2  trained on all of it: better
v3  v2, but its int8 variant was calibrated on images scaled twice: it answers fast, and wrong
v4  v2 behind a test-time augmentation of thousands of copies, each filtered again and again: right answers, far too late
v5  a good model once more, for a thief to tamper with
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skerry.runtime.quantize import quantize_int8

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

AUGMENTED_COPIES = 20_000
FILTER_PASSES = 24
_TRAINED_OPSET = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """8x8 scans as (n, 64) float32 in 0..1, and their digits; `held_out` is never trained or calibrated on."""

    train: Images
    train_labels: Labels
    held_out: Images
    held_out_labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    fp32: Path
    int8: Path


def load_scans() -> Scans:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    train, held_out, train_labels, held_out_labels = train_test_split(
        images, labels.astype(np.int64), test_size=0.33, random_state=7, stratify=labels
    )
    return Scans(train=train, train_labels=train_labels, held_out=held_out, held_out_labels=held_out_labels)


def build_versions(scans: Scans, folder: Path) -> dict[str, Built]:
    """Train and export v1..v5 into `folder`/vN/{fp32,int8}.onnx."""
    weak = _train(scans.train[:300], scans.train_labels[:300])
    strong = _train(scans.train, scans.train_labels)
    return {
        "v1": _build(weak, scans.train, folder / "v1"),
        "v2": _build(strong, scans.train, folder / "v2"),
        "v3": _build(strong, scans.train / 16.0, folder / "v3"),
        "v4": _augment(_build(strong, scans.train, folder / "v4")),
        "v5": _build(_train(scans.train, scans.train_labels, seed=2), scans.train, folder / "v5"),
    }


def _train(images: Images, labels: Labels, *, seed: int = 1) -> onnx.ModelProto:
    network = MLPClassifier((128, 64), max_iter=220, random_state=seed, tol=1e-3).fit(images, labels)
    exported: onnx.ModelProto = to_onnx(
        network,
        images[:1],
        options={"zipmap": False},
        target_opset={"": _TRAINED_OPSET, "ai.onnx.ml": 1},
    )
    exported.graph.input[0].name = "image"
    for node in exported.graph.node:
        node.input[:] = ["image" if name == "X" else name for name in node.input]
    return exported


def _augmented(model: onnx.ModelProto) -> onnx.ModelProto:
    """Filter `AUGMENTED_COPIES` copies of each image `FILTER_PASSES` times, answer for all, keep the first: same answers, late."""
    inner = compose.add_prefix(model, prefix="tta/")
    stages = ["copies/0", *(f"copies/{n}" for n in range(1, FILTER_PASSES)), "tta/image"]
    before = [helper.make_node("Tile", ["image", "repeats"], [stages[0]])]
    before += [
        helper.make_node("MatMul", [source, "filter"], [target], name=f"filter-{target}")
        for source, target in pairwise(stages)
    ]
    after = [
        helper.make_node("Shape", ["image"], ["rows"], start=0, end=1),
        helper.make_node("Slice", ["tta/label", "first", "rows"], ["label"]),
        helper.make_node("Slice", ["tta/probabilities", "first", "rows"], ["probabilities"]),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "repeats": np.array([AUGMENTED_COPIES, 1], np.int64),
        "first": np.array([0], np.int64),
        "filter": np.eye(64, dtype=np.float32),
    }
    graph = helper.make_graph(
        [*before, *inner.graph.node, *after],
        "augmented",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 10]),
        ],
        [
            *inner.graph.initializer,
            *(numpy_helper.from_array(value, name) for name, value in constants.items()),
        ],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _build(model: onnx.ModelProto, calibration: Images, folder: Path) -> Built:
    folder.mkdir(parents=True, exist_ok=True)
    built = Built(fp32=folder / "fp32.onnx", int8=folder / "int8.onnx")
    onnx.checker.check_model(model, full_check=True)
    built.fp32.write_bytes(model.SerializeToString(deterministic=True))
    samples = [{"image": calibration[i : i + 1]} for i in range(min(100, len(calibration)))]
    quantize_int8(built.fp32, built.int8, samples)
    return built


def _augment(built: Built) -> Built:
    for path in (built.fp32, built.int8):
        path.write_bytes(_augmented(onnx.load(path)).SerializeToString(deterministic=True))
    return built
