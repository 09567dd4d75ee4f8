# SPDX-License-Identifier: Apache-2.0
"""KServe's own Python client against a running server of the model `digits` (conformance/serving/serve.py).

    python conformance/serving/kserve_client.py http://127.0.0.1:9000 [GRPC_HOST:PORT]

Needs kserve in an environment of its own, nothing of ours.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferInput, InferRequest, InferResponse
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

X = np.arange(8, dtype=np.float32).reshape(2, 4)
WEIGHT = (np.arange(12, dtype=np.float32) % 5 - 2).reshape(4, 3)


def request(*, binary: bool) -> InferRequest:
    tensor = InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary)
    outputs = [RequestedOutput(name, parameters={"binary_data": binary}) for name in ("scores", "label")]
    return InferRequest(model_name="digits", infer_inputs=[tensor], request_outputs=outputs)


def check(answer: InferResponse, kind: str) -> None:
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    np.testing.assert_array_equal(outputs["scores"].reshape(2, 3), X @ WEIGHT)
    np.testing.assert_array_equal(outputs["label"].reshape(2), (X @ WEIGHT).argmax(1))
    sys.stdout.write(f"{kind}: right\n")


async def http(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=10))
    for kind, got in (
        ("live", await client.is_server_live(url)),
        ("ready", await client.is_server_ready(url)),
        ("model ready", await client.is_model_ready(url, "digits")),
    ):
        if not got:
            raise SystemExit(f"{kind}: {got}")
        sys.stdout.write(f"http {kind}: yes\n")
    for binary in (False, True):
        answer = await client.infer(url, request(binary=binary), model_name="digits")
        check(answer, f"http {'binary' if binary else 'JSON'}")
    await client.close()


async def grpc(target: str) -> None:
    async with InferenceGRPCClient(target, timeout=10) as client:
        for kind, got in (
            ("live", await client.is_server_live()),
            ("ready", await client.is_server_ready()),
            ("model ready", await client.is_model_ready("digits")),
        ):
            if not got:
                raise SystemExit(f"{kind}: {got}")
            sys.stdout.write(f"grpc {kind}: yes\n")
        check(await client.infer(request(binary=True)), "grpc raw")
        check(await client.infer(request(binary=False)), "grpc typed")


async def both(url: str, target: str | None) -> None:
    await http(url)
    if target:
        await grpc(target)


if __name__ == "__main__":
    asyncio.run(both(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))  # noqa: PLR2004 - URL and maybe a target
