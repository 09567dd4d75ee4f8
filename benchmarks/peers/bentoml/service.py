# SPDX-License-Identifier: Apache-2.0
"""The service that `server.py` starts; its model comes in MODEL_FILE."""

import os

import bentoml
import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import onnxruntime as ort


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class OnnxService:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL_FILE"], options, providers=["CPUExecutionProvider"])

    @bentoml.api
    async def predict(self, input: np.ndarray) -> np.ndarray:  # noqa: A002 - the name of the input in the request
        return self.session.run(["output"], {"input": input.astype(np.float32, copy=False)})[0]
