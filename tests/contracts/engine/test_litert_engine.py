# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from contracts.engine import litert_models
from contracts.engine.suite import EngineContract
from skerry.runtime.litert import LiteRtEngine


class TestLiteRtEngine(EngineContract):
    @pytest.fixture
    def build(self):
        return litert_models

    @pytest.fixture
    def load(self):
        engines = []

        def load(model, name="model"):
            engines.append(LiteRtEngine.load(model, name=name))
            return engines[-1]

        yield load
        for engine in engines:
            engine.close()

    def test_strings_need_not_be_text(self, load):
        values = np.array([[b"\xff\x00", b"a\x00"]], dtype=object)
        assert load(litert_models.identity("BYTES")).run({"x": values})["y"].tolist() == values.tolist()
