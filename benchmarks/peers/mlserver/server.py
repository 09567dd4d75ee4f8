# SPDX-License-Identifier: Apache-2.0
"""MLServer with an ONNX Runtime model: `server.py NAME MODEL.onnx HTTP_PORT GRPC_PORT`. No worker processes, no logs."""

import asyncio
import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

NAME, MODEL, HTTP_PORT, GRPC_PORT = sys.argv[1:5]


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feed = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        (output,) = self.session.run(["output"], feed)
        answer = NumpyCodec.encode_output("output", output)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[answer])


async def main() -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=int(HTTP_PORT),
        grpc_port=int(GRPC_PORT),
        parallel_workers=0,
        metrics_endpoint=None,
        debug=False,
        extensions=[],
    )
    await MLServer(settings).start([ModelSettings(name=NAME, implementation=OnnxModel)])


asyncio.run(main())
