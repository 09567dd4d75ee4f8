# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from contracts.engine import models
from contracts.engine.suite import EngineContract
from skerry.errors import InferenceRequestInvalid
from skerry.runtime.onnx import OnnxEngine

KINDS = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING", "BF16": "BFLOAT16"}


def identity(kind, shape=(-1, 2)):
    return models.identity(getattr(TensorProto, KINDS.get(kind, kind)), [None if axis < 0 else axis for axis in shape])


def reshape():
    """x[N] FP32 in the shape s[1] INT32 says."""
    return models.build(
        [
            helper.make_node("Cast", ["s"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["x", "wide"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["N"]), ("s", TensorProto.INT32, [1])],
        [("y", TensorProto.FLOAT, ["M"])],
    )


class TestOnnxEngine(EngineContract):
    @pytest.fixture
    def build(self):
        return SimpleNamespace(affine=models.affine, classifier=models.classifier, identity=identity, reshape=reshape)

    @pytest.fixture
    def load(self):
        engines = []

        def load(model, name="model"):
            engines.append(OnnxEngine.load(model, name=name))
            return engines[-1]

        yield load
        for engine in engines:
            engine.close()

    def test_a_string_that_is_not_utf8_is_refused(self, load):
        with pytest.raises(InferenceRequestInvalid):
            load(identity("BYTES")).run({"x": np.array([[b"\xff", b""]], dtype=object)})
