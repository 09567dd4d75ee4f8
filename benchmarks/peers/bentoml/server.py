# SPDX-License-Identifier: Apache-2.0
"""BentoML with an ONNX Runtime model: `server.py NAME MODEL.onnx HTTP_PORT GRPC_PORT` (gRPC is not used). One worker, no access log."""

import os
import sys
from pathlib import Path

NAME, MODEL, HTTP_PORT, GRPC_PORT = sys.argv[1:5]
here = Path(__file__).parent
bentoml = Path(sys.executable).with_name("bentoml")
os.environ |= {"MODEL_FILE": MODEL, "BENTOML_DO_NOT_TRACK": "true"}
os.execv(
    bentoml,
    [bentoml, "serve", "service:OnnxService", "--host", "127.0.0.1", "--port", HTTP_PORT, "--working-dir", here],
)
