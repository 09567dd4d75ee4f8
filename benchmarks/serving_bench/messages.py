# SPDX-License-Identifier: Apache-2.0
"""Request bytes for every way of asking, and the output read from an answer's body, to be compared with the bare engine's."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import hpack
import numpy as np
from tritonclient.grpc import service_pb2 as pb

Array = np.ndarray
Read = Callable[[bytes], Array]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What to send, as load.c takes it, and how to read what comes back."""

    kind: Literal["http", "grpc", "shm"]
    request: bytes
    read: Read


def _post(path: str, head: bytes, tail: bytes = b"", *, binary: bool = False) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(head) + len(tail)}"]
    if binary:
        lines += ["Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {len(head)}"]
    else:
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + head + tail


def _tensor(x: Array) -> dict[str, object]:
    return {"name": "input", "shape": list(x.shape), "datatype": "FP32"}


def json_request(name: str, x: Array, **more: str) -> Exchange:
    """`more` is for `id`, which comes back: without one MLServer and KServe make up another for every answer."""
    body = {**more, "inputs": [{**_tensor(x), "data": x.ravel().tolist()}]}
    return Exchange(kind="http", request=_post(f"/v2/models/{name}/infer", _text(body)), read=_read_json)


def binary_request(name: str, x: Array, **more: str) -> Exchange:
    body = {
        **more,
        "inputs": [{**_tensor(x), "parameters": {"binary_data_size": x.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    request = _post(f"/v2/models/{name}/infer", _text(body), x.tobytes(), binary=True)
    return Exchange(kind="http", request=request, read=_read_binary)


def plain_request(path: str, x: Array, pick: Callable[[object], object]) -> Exchange:
    """For servers with an interface of their own: nested lists in `input`; `pick` finds the output in the answer."""
    return Exchange(
        kind="http",
        request=_post(path, _text({"input": x.tolist()})),
        read=lambda body: np.array(pick(json.loads(body)), np.float32),
    )


def shared_memory(x: Array) -> Exchange:
    """For shared.py, which has a client of its own."""
    file = io.BytesIO()
    np.save(file, x)
    return Exchange(kind="shm", request=file.getvalue(), read=lambda _: np.empty(0))


def health_request(path: str) -> Exchange:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    return Exchange(kind="http", request=request, read=lambda _: np.empty(0))


def grpc_request(name: str, x: Array, port: int, **more: str) -> Exchange:
    message = pb.ModelInferRequest(model_name=name, **more, raw_input_contents=[x.tobytes()])
    message.inputs.add(name="input", datatype="FP32", shape=x.shape)
    text = message.SerializeToString()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", f"127.0.0.1:{port}"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "load"),
    ]
    encoder = hpack.Encoder()  # the second block refers to what the first put into the table, as every gRPC client does
    blocks = b"".join(struct.pack("<I", len(block)) + block for block in (encoder.encode(headers) for _ in range(2)))
    request = blocks + struct.pack(">BI", 0, len(text)) + text
    return Exchange(kind="grpc", request=request, read=_read_grpc)


def _text(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _read_json(body: bytes) -> Array:
    (output,) = json.loads(body)["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def _read_binary(body: bytes) -> Array:
    """load.c keeps no headers and no chunk sizes apart: the JSON begins at its brace and says how long the tensor behind it is."""
    text = body.decode("latin-1")
    document, end = json.JSONDecoder().raw_decode(text, text.index("{"))
    (output,) = document["outputs"]
    return np.frombuffer(body[end : end + output["parameters"]["binary_data_size"]], np.float32).reshape(
        output["shape"]
    )


def _read_grpc(body: bytes) -> Array:
    message = pb.ModelInferResponse.FromString(body[5:])
    output = message.outputs[0]
    raw = message.raw_output_contents
    values = np.frombuffer(raw[0], np.float32) if raw else np.array(output.contents.fp32_contents, np.float32)
    return values.reshape(tuple(output.shape))
