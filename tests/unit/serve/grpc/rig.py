# SPDX-License-Identifier: Apache-2.0
"""A gRPC connection over real engines and a transport in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from skerry.serve.grpc.connection import GrpcConnection
from skerry.serve.grpc.service import GrpcService
from unit.serve.grpc import h2
from unit.serve.rig import MemoryTransport, Rig

X = np.array([[1, 2, 3, 4]], np.float32)


class Transport(MemoryTransport):
    def write(self, data):
        assert not self.closed
        super().write(bytes(data))

    def writelines(self, parts):
        self.write(b"".join(parts))


class GrpcRig(Rig):
    """A client that opens its window wide unless told otherwise."""

    connection: Any  # another kind than the base's
    transport: Any
    grpc_limits = None
    regions: Any = None

    def __init__(self, models=None, *, grpc_limits=None, window=(1 << 31) - 1, body_limit=64 * 1024 * 1024, **more):
        self.grpc_limits = grpc_limits
        self.window = window
        self.body_limit = body_limit
        super().__init__(models, body_limit=body_limit, **more)

    def connect(self):
        self.service = GrpcService(self.desk, version="9", limit=self.body_limit, regions=self.regions)
        self.connection = GrpcConnection(self, self.service, self.grpc_limits)
        self.transport = Transport()
        self.peer = h2.Peer()
        self.connection.connection_made(self.transport)
        hello = h2.PREFACE + h2.settings(window=self.window)
        if self.window > 65_535:
            hello += h2.window_update(0, self.window - 65_535)
        self.send(hello)

    def send(self, data):
        """Feed bytes; the frames sent since the last call."""
        if not self.transport.reading_paused:
            self.connection.data_received(data)
        return self.take()

    def take(self):  # type: ignore[override]
        sent, self.transport.sent = self.transport.sent, b""
        return self.peer.take(sent)

    def call(self, request, path=h2.INFER, **headers):
        """The answer to a message; bytes are sent as they are."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        stream, wire = self.peer.call(data, path, **headers)
        self.send(wire)
        return self.peer.answers.get(stream)

    def ask(self, method, request, answer):
        """A method by its name; the answer parsed."""
        found = self.call(request, f"/inference.GRPCInferenceService/{method}")
        return answer.FromString(found.message)

    def infer(self, request, **headers):  # type: ignore[override]
        """The parsed answer, or the Answer that says why not."""
        found = self.call(request, **headers)
        return pb.ModelInferResponse.FromString(found.message) if found.status == 0 else found

    @property
    def gone(self):
        """The code of the GOAWAY, None when none was sent."""
        sent = self.peer.of(h2.GOAWAY)
        return sent[-1].code if sent else None


def request(raw=X, *, model="m", name="x", datatype="FP32", shape=None, **more):
    """A request with one raw input; `raw` an array, bytes, or None."""
    message = pb.ModelInferRequest(model_name=model, **more)
    shape = shape if shape is not None else list(raw.shape)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        message.raw_input_contents.append(raw if isinstance(raw, bytes) else raw.tobytes())
    return message
