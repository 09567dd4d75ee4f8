# SPDX-License-Identifier: Apache-2.0
"""KServe's model server with an ONNX Runtime model: `server.py NAME MODEL.onnx HTTP_PORT GRPC_PORT`. One worker, no access log."""

import os
import sys

NAME, MODEL, HTTP_PORT, GRPC_PORT = sys.argv[1:5]
sys.argv[1:] = ["--configure_logging=false", "--enable_latency_logging=false"]  # read when kserve is imported

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import onnxruntime as ort  # noqa: E402 - after sys.argv
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402


class OnnxModel(Model):
    def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self.ready = True
        return True

    def predict(self, payload: InferRequest, *_headers: object, **_more: object) -> InferResponse:
        feed = {each.name: each.as_numpy() for each in payload.inputs}
        (result,) = self.session.run(["output"], feed)
        output = InferOutput("output", list(result.shape), "FP32")
        output.set_data_from_numpy(result, binary_data=payload.from_grpc or bool(payload.use_binary_outputs))
        return InferResponse(payload.id, NAME, [output], use_binary_outputs=payload.use_binary_outputs)


model = OnnxModel(NAME)
model.load()
ModelServer(
    http_port=int(HTTP_PORT),
    grpc_port=int(GRPC_PORT),
    enable_grpc=True,
    workers=1,
    access_log_format=None,
    enable_latency_logging=False,
).start([model])
