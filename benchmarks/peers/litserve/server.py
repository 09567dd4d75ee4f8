# SPDX-License-Identifier: Apache-2.0
"""LitServe with an ONNX Runtime model: `server.py NAME MODEL.onnx HTTP_PORT GRPC_PORT` (it has no gRPC; the port is not used)."""

import os
import sys

import litserve
import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import onnxruntime as ort

NAME, MODEL, HTTP_PORT, GRPC_PORT = sys.argv[1:5]


class OnnxApi(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, list[object]]) -> np.ndarray:
        return np.asarray(request["input"], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["output"], {"input": x})[0]

    def encode_response(self, output: np.ndarray) -> dict[str, object]:
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(OnnxApi(), accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(HTTP_PORT), num_api_servers=1, generate_client_file=False, log_level="error")
