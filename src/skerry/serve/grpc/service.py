# SPDX-License-Identifier: Apache-2.0
"""The methods of `inference.GRPCInferenceService` and `grpc.health.v1.Health` over the same desk and documents as HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from skerry.errors import SkerryError, UnknownModel, UnsupportedEncoding
from skerry.oip.grpc import documents as messages
from skerry.oip.grpc import requests, wire
from skerry.oip.grpc.descriptors import Message
from skerry.oip.messages import EXTENSIONS
from skerry.serve import documents
from skerry.serve.calls import Call
from skerry.serve.desk import Desk
from skerry.serve.grpc import regions as region_calls
from skerry.serve.grpc.call import InferCall
from skerry.serve.grpc.exchange import Failure, Incoming, Method, Payload, Reply, failure
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.http.encoding import beginning, inflate
from skerry.serve.served import Served
from skerry.serve.shm.regions import Regions

_INFERENCE: Final = "inference.GRPCInferenceService"
_HEALTH: Final = "grpc.health.v1.Health"
_ENCODINGS: Final = frozenset({"gzip", "deflate"})
_BEGINNING: Final = 64 * 1024  # of a compressed infer request: its model's name is in front
_SMALL: Final = 64 * 1024  # every other request

_NO_LOADING: Final = "which models run is decided by the agent of this device, not over this interface"
_NO_SHARING: Final = "shared memory is not offered"
_NOT_OFFERED: Final = {
    f"/{_INFERENCE}/ModelStreamInfer": "streaming is not offered, every model answers ModelInfer",
    f"/{_INFERENCE}/RepositoryModelLoad": _NO_LOADING,
    f"/{_INFERENCE}/RepositoryModelUnload": _NO_LOADING,
    f"/{_INFERENCE}/SystemSharedMemoryStatus": _NO_SHARING,
    f"/{_INFERENCE}/SystemSharedMemoryRegister": _NO_SHARING,
    f"/{_INFERENCE}/SystemSharedMemoryUnregister": _NO_SHARING,
    f"/{_INFERENCE}/CudaSharedMemoryStatus": _NO_SHARING,
    f"/{_INFERENCE}/CudaSharedMemoryRegister": _NO_SHARING,
    f"/{_INFERENCE}/CudaSharedMemoryUnregister": _NO_SHARING,
    f"/{_INFERENCE}/TraceSetting": "tracing is not controlled over this interface",
    f"/{_INFERENCE}/LogSettings": "logging is not controlled over this interface",
    f"/{_HEALTH}/Watch": "streaming is not offered, ask Check again",
}


_OF_REGIONS: Final = {
    "SystemSharedMemoryStatus": region_calls.status,
    "SystemSharedMemoryRegister": region_calls.register,
    "SystemSharedMemoryUnregister": region_calls.unregister,
}


class GrpcService:
    """`limit` bounds a message once it is inflated, in bytes; without `regions` no shared memory is offered."""

    def __init__(self, desk: Desk, *, version: str, limit: int, regions: Regions | None = None) -> None:
        self._desk = desk
        self._regions = regions
        self._version = version
        self._limit = limit
        simple: dict[str, tuple[str, Callable[[Message], bytes]]] = {
            f"/{_INFERENCE}/ServerLive": ("ServerLiveRequest", self._live),
            f"/{_INFERENCE}/ServerReady": ("ServerReadyRequest", self._ready),
            f"/{_INFERENCE}/ModelReady": ("ModelReadyRequest", self._model_ready),
            f"/{_INFERENCE}/ServerMetadata": ("ServerMetadataRequest", self._server),
            f"/{_INFERENCE}/ModelMetadata": ("ModelMetadataRequest", self._metadata),
            f"/{_INFERENCE}/ModelConfig": ("ModelConfigRequest", self._config),
            f"/{_INFERENCE}/ModelStatistics": ("ModelStatisticsRequest", self._statistics),
            f"/{_INFERENCE}/RepositoryIndex": ("RepositoryIndexRequest", self._index),
            f"/{_HEALTH}/Check": ("HealthCheckRequest", self._check),
        }
        if regions is not None:
            for name, method in _OF_REGIONS.items():
                simple[f"/{_INFERENCE}/{name}"] = (f"{name}Request", partial(method, regions))
        self._methods: dict[str, Method] = {path: partial(_simple, *entry) for path, entry in simple.items()}
        self._methods[f"/{_INFERENCE}/ModelInfer"] = self._infer

    def find(self, path: str) -> Method | Failure:
        method = self._methods.get(path)
        if method is not None:
            return method
        return Failure(status=GrpcStatus.UNIMPLEMENTED, text=_NOT_OFFERED.get(path, "there is no such method"))

    # --- infer

    def _infer(self, incoming: Incoming, reply: Reply) -> Call | None:
        try:
            served, call = self._packed(incoming, reply) if incoming.encoding else self._plain(incoming, reply)
        except SkerryError as error:
            reply(failure(error))
            return None
        self._desk.ask(served, call)
        return call

    def _plain(self, incoming: Incoming, reply: Reply) -> tuple[Served, InferCall]:
        parts = wire.split(incoming.message)
        regions = self._regions
        served = self._desk.find(parts.name, parts.version)
        if regions is not None and region_calls.MARK in parts.head:
            return served, region_calls.RegionCall(
                received=incoming.received,
                deadline=incoming.deadline,
                heavy=True,  # the regions may be large
                pinned=bool(parts.version),
                message=incoming.message,
                reply=reply,
                parts=parts,
                regions=regions,
            )
        return served, InferCall(
            received=incoming.received,
            deadline=incoming.deadline,
            size=len(parts.head),
            pinned=bool(parts.version),
            message=incoming.message,
            reply=reply,
            parts=parts,
        )

    def _packed(self, incoming: Incoming, reply: Reply) -> tuple[Served, InferCall]:
        """Unpacked on a worker; only as much as names the model here."""
        if incoming.encoding not in _ENCODINGS:
            raise UnsupportedEncoding(encoding=incoming.encoding)
        begin = beginning(bytes(incoming.message), incoming.encoding, _BEGINNING)
        name, version = wire.names(begin, whole=len(begin) < _BEGINNING)
        return self._desk.find(name, version), InferCall(
            received=incoming.received,
            deadline=incoming.deadline,
            heavy=True,
            pinned=bool(version),
            message=incoming.message,
            reply=reply,
            encoding=incoming.encoding,
            limit=self._limit,
        )

    # --- everything else

    def _live(self, _: Message) -> bytes:
        return messages.encode("ServerLiveResponse", {"live": True})

    def _ready(self, _: Message) -> bytes:
        return messages.encode("ServerReadyResponse", {"ready": self._all_ready})

    @property
    def _all_ready(self) -> bool:
        return all(served.ready for served in self._desk.models.values())

    def _model_ready(self, request: Message) -> bytes:
        """Of an unknown model: OK and false, as Triton has it."""
        try:
            ready = self._desk.find(request.name, request.version).ready
        except UnknownModel:
            ready = False
        return messages.encode("ModelReadyResponse", {"ready": ready})

    def _server(self, _: Message) -> bytes:
        more = [region_calls.EXTENSION] if self._regions is not None else []
        return messages.encode("ServerMetadataResponse", documents.server(self._version, [*EXTENSIONS, *more]))

    def _metadata(self, request: Message) -> bytes:
        served = self._desk.find(request.name, request.version)
        return messages.encode("ModelMetadataResponse", documents.metadata(served))

    def _config(self, request: Message) -> bytes:
        served = self._desk.find(request.name, request.version)
        return messages.encode("ModelConfigResponse", {"config": documents.config(served)})

    def _statistics(self, request: Message) -> bytes:
        """Of all models when none is named."""
        known = self._desk.models.values()
        chosen = [self._desk.find(request.name, request.version)] if request.name else list(known)
        return messages.encode("ModelStatisticsResponse", documents.statistics(chosen))

    def _index(self, request: Message) -> bytes:
        chosen = [served for served in self._desk.models.values() if served.ready or not request.ready]
        return messages.encode("RepositoryIndexResponse", {"models": documents.index(chosen)})

    def _check(self, request: Message) -> bytes:
        if request.service not in {"", _INFERENCE, _HEALTH}:
            raise UnknownModel(name=request.service)
        return messages.encode("HealthCheckResponse", {"status": "SERVING" if self._all_ready else "NOT_SERVING"})


def _simple(name: str, answer: Callable[[Message], bytes], incoming: Incoming, reply: Reply) -> None:
    try:
        if incoming.encoding and incoming.encoding not in _ENCODINGS:
            raise UnsupportedEncoding(encoding=incoming.encoding)
        plain = inflate(bytes(incoming.message), incoming.encoding, limit=_SMALL)
        result: Payload | Failure = [answer(requests.parse(name, plain))]
    except SkerryError as error:
        result = failure(error)
    reply(result)
