# SPDX-License-Identifier: Apache-2.0
"""Small bundles whose model bytes need not be a model: for everything that moves bundles without running them."""

from __future__ import annotations

import io

import numpy as np

from skerry.bundle import oci
from skerry.bundle.archive import write_archive
from skerry.bundle.blob import Blob, MemoryBlob
from skerry.bundle.manifest import BundleConfig, Io, Needs, SelfTest, TensorSpec, Variant

FP32 = "models/fp32.onnx"
INT8 = "models/int8.onnx"
SAMPLES = "self-test.npz"
CARD = "README.md"


def samples(count: int = 4) -> bytes:
    buffer = io.BytesIO()
    rows = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    arrays: dict[str, np.ndarray] = {"in.x": rows, "out.y": rows * 2}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes the arrays for allow_pickle
    return buffer.getvalue()


def config(**changes: object) -> BundleConfig:
    fields: dict[str, object] = {
        "schema": "skerry/bundle/v1",
        "name": "digits",
        "version": "1.0.0",
        "line": "vision",
        "release_seq": 1,
        "io": Io(
            inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 3)),),
            outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 3)),),
        ),
        "variants": (
            Variant(name="fp32", runtime="onnxruntime", precision="fp32", model=FP32, files=(FP32,)),
            Variant(
                name="int8",
                runtime="onnxruntime",
                precision="int8",
                model=INT8,
                files=(INT8,),
                needs=Needs(arch=("x86_64",)),
                preference=1,
            ),
        ),
        "self_test": SelfTest(file=SAMPLES, samples=4),
        "files": (),
        "licenses": ("Apache-2.0",),
    }
    return BundleConfig(**{**fields, **changes})  # type: ignore[arg-type]  # a test may ask for a wrong one


def files(**changes: bytes) -> dict[str, Blob]:
    contents = {FP32: b"fp32 weights " * 100, INT8: b"int8 weights " * 30, SAMPLES: samples(), CARD: b"# Digits\n"}
    return {path: MemoryBlob(data) for path, data in {**contents, **changes}.items()}


def bundle(**changes: object) -> oci.Bundle:
    return oci.build(config(**changes), files())


def archive(of: oci.Bundle | None = None) -> bytes:
    """The bytes of an .skb."""
    buffer = io.BytesIO()
    write_archive(of or bundle(), buffer)
    return buffer.getvalue()
