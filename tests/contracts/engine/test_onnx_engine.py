# SPDX-License-Identifier: Apache-2.0
import pytest

from contracts.engine.suite import EngineContract
from skerry.runtime.onnx import OnnxEngine


class TestOnnxEngine(EngineContract):
    @pytest.fixture
    def load(self):
        engines = []

        def load(model, name="model"):
            engines.append(OnnxEngine.load(model, name=name))
            return engines[-1]

        yield load
        for engine in engines:
            engine.close()
