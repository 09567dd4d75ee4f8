# SPDX-License-Identifier: Apache-2.0
"""Triton's system shared memory over gRPC: regions by their methods, and infer requests some of whose tensors lie in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import field

from skerry.errors import InferenceRequestInvalid
from skerry.oip import binary_codec
from skerry.oip.grpc import answers, documents, requests, wire
from skerry.oip.grpc.descriptors import Message
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.oip.requests import again
from skerry.runtime.datatypes import Array
from skerry.serve.grpc.call import InferCall
from skerry.serve.grpc.exchange import Payload
from skerry.serve.http.call import BODY_LIMIT
from skerry.serve.shm.regional import place_of
from skerry.serve.shm.regions import Allowance, Place, Regions, Registration

MARK: Final = b"shared_memory_region"
"""Is in the head of every request of this kind; one that has it for another reason is only read more slowly."""

EXTENSION: Final = "system_shared_memory"
_PARAMETERS: Final = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


def status(regions: Regions, request: Message) -> bytes:
    """Of all when none is named."""
    known = {each["name"]: each for each in regions.status(request.name)}
    return documents.encode("SystemSharedMemoryStatusResponse", {"regions": known})


def register(regions: Regions, request: Message) -> bytes:
    asked = Registration(key=request.key, byte_size=request.byte_size, offset=request.offset)
    regions.register(request.name, asked)
    return b""


def unregister(regions: Regions, request: Message) -> bytes:
    """All when none is named."""
    regions.unregister(request.name)
    return b""


class RegionCall(InferCall, kw_only=True):
    """`request` once it was read: read again, for a trial, it must be what was answered, not what the client wrote since."""

    regions: Regions
    places: dict[str, Place] = field(default_factory=dict)  # of outputs, by name
    request: InferRequest | None = None
    reader: ModelSignature | None = None

    @property
    def weight(self) -> int:
        own = sum(array.nbytes for array in self.request.inputs.values()) if self.request else 0
        return len(self.message) + own

    def decode(self, model: ModelSignature) -> InferRequest:
        if self.request is None:
            parts = self.unpacked(model)
            self.request = requests.decode(self._fetched(parts) if MARK in parts.head else parts, model)
        elif self.reader is not model:
            self.request = again(self.request)
        self.reader = model
        return self.request

    def _fetched(self, parts: wire.Parts) -> wire.Parts:
        """As if all bytes had come with the request. Raises InferenceRequestInvalid."""
        message = requests.parse("ModelInferRequest", parts.head)
        came = iter(parts.raw)
        allowance = Allowance(BODY_LIMIT)  # of HTTP too: what lies in regions counts like a body
        raw: list[memoryview] = []
        for tensor in message.inputs:
            what = f"input {tensor.name}"
            place = _taken_out(what, tensor)
            if place is None:
                raw.extend([data for data in (next(came, None),) if data is not None])
            elif tensor.HasField("contents"):
                raise InferenceRequestInvalid(problem=f"{what}: has contents and a place in shared memory")
            else:
                raw.append(memoryview(self.regions.read(what, place, allowance)))
        for output in message.outputs:
            place = _taken_out(f"output {output.name}", output)
            if place is not None:
                self.places[output.name] = place
        head = message.SerializeToString()
        return wire.Parts(name=parts.name, version=parts.version, id=parts.id, head=head, raw=(*raw, *came))

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> Payload:
        for name, place in self.places.items():
            self.regions.write(f"output {name}", place, binary_codec.encode_tensor(outputs[name]))
        return answers.encode(request, outputs, model, elsewhere=self.places)


def _taken_out(what: str, tensor: Message) -> Place | None:
    """Where `tensor` lies, and no word of it left in its parameters."""
    place = place_of(what, requests.parameters_of(tensor.parameters))
    for name in _PARAMETERS:
        tensor.parameters.pop(name, None)
    return place
