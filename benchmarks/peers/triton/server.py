# SPDX-License-Identifier: Apache-2.0
"""Triton's C++ front ends and scheduler (the binary in nvidia-pytriton) over its Python backend with an ONNX Runtime session.

`server.py NAME MODEL.onnx HTTP_PORT GRPC_PORT`. Its native ONNX backend is not in the wheel; it would save one hop between processes.
"""

import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

NAME, MODEL, HTTP_PORT, GRPC_PORT = sys.argv[1:5]
CONFIG = """name: "{name}"
backend: "python"
max_batch_size: 0
input [{{ name: "input" data_type: TYPE_FP32 dims: [{shape}] }}]
output [{{ name: "output" data_type: TYPE_FP32 dims: [-1, -1] }}]
"""
AXES = {"mlp": "-1, 128"}

package = Path(find_spec("pytriton").submodule_search_locations[0])
server = package / "tritonserver"
repository = Path(tempfile.mkdtemp(prefix="triton-"))
version = repository / NAME / "1"
version.mkdir(parents=True)
shutil.copy(Path(__file__).with_name("model.py"), version)
(version / "model.onnx").symlink_to(MODEL)
(repository / NAME / "config.pbtxt").write_text(CONFIG.format(name=NAME, shape=AXES.get(NAME, "-1, 3, -1, -1")))
backends = repository.parent / f"{repository.name}-backends"
shutil.copytree(server / "backends", backends)
stub = f"{sys.version_info.major}.{sys.version_info.minor}"
shutil.copy(server / "python_backend_stubs" / stub / "triton_python_backend_stub", backends / "python")
venv = Path(sys.prefix)
os.environ |= {
    "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
    "VIRTUAL_ENV": str(venv),
    "PYTHONPATH": str(package.parent),
    "LD_LIBRARY_PATH": f"{package.parent / 'nvidia_pytriton.libs'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
}
os.execv(
    server / "bin" / "tritonserver",
    [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        f"--http-port={HTTP_PORT}",
        f"--grpc-port={GRPC_PORT}",
        "--allow-metrics=false",
        "--log-verbose=0",
        "--http-thread-count=2",
    ],
)
