# SPDX-License-Identifier: Apache-2.0
"""An infer request over HTTP some of whose tensors lie in registered regions: made into one that carries them, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.json import Decoder, Encoder

from skerry.errors import InferenceRequestInvalid
from skerry.oip import binary_codec, json_codec, requests
from skerry.oip.messages import InferRequest, ModelSignature, Parameter, RequestBody, RequestOutput, RequestTensor
from skerry.runtime.datatypes import Array
from skerry.serve.http.call import HttpCall
from skerry.serve.http.message import BINARY, HttpResponse, QuickResponse, in_binary
from skerry.serve.shm.regions import Allowance, Place, Regions

MARK: Final = b'"shared_memory_region"'
"""Is in every request of this kind; one that has it for another reason is only read more slowly."""

_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_decoder: Final = Decoder(RequestBody)
_encoder: Final = Encoder()


class _Output(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Parameter] | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class RegionCall(HttpCall, kw_only=True):
    """`request` once it was read: read again, for a trial, it must be what was answered, not what the client wrote since."""

    regions: Regions
    places: dict[str, Place] = field(default_factory=dict)  # of outputs, by name
    request: InferRequest | None = None
    reader: ModelSignature | None = None

    @property
    def weight(self) -> int:
        return len(self.body) + (sum(array.nbytes for array in self.request.inputs.values()) if self.request else 0)

    def decode(self, model: ModelSignature) -> InferRequest:
        if self.request is None:
            self.request = self._read(model)
        elif self.reader is not model:
            self.request = requests.again(self.request)
        self.reader = model
        return self.request

    def _read(self, model: ModelSignature) -> InferRequest:
        length = self.wishes.header_length
        split = len(self.body) if length is None else length
        if self.wishes.content_encoding or length == 0 or split > len(self.body):
            return HttpCall.decode(self, model)  # which knows no regions
        try:
            document = _decoder.decode(memoryview(self.body)[:split])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return HttpCall.decode(self, model)  # which says what is wrong
        inputs, tail, placed = self._inputs(document, self.body[split:])
        self.places = dict(_places(document))
        outputs = [
            RequestOutput(output.name, {"binary_data": True}) if output.name in self.places else output
            for output in document.outputs
        ]
        head = _encoder.encode(msgspec.structs.replace(document, inputs=inputs, outputs=outputs))
        return requests.decode(head + tail, len(head) if placed or length is not None else None, model)

    def _inputs(self, document: RequestBody, tail: bytes) -> tuple[list[RequestTensor], bytes, bool]:
        """The inputs as if all bytes had come with the request, those bytes, and whether a region has any of them."""
        inputs: list[RequestTensor] = []
        parts: list[bytes] = []
        allowance = Allowance(self.limit)
        at = 0
        for tensor in document.inputs:
            what = f"input {tensor.name}"
            place = place_of(what, tensor.parameters)
            size = tensor.parameters.get("binary_data_size")
            if place is None:
                inputs.append(tensor)
                end = at + size if isinstance(size, int) and size > 0 else at
                parts.append(tail[at:end])
                at = end
                continue
            if tensor.data is not UNSET or size is not None:
                raise InferenceRequestInvalid(problem=f"{what}: has data and a place in shared memory")
            inputs.append(RequestTensor(tensor.name, tensor.shape, tensor.datatype, {"binary_data_size": place.size}))
            parts.append(self.regions.read(what, place, allowance))
        placed = any(_REGION in tensor.parameters for tensor in document.inputs)
        return inputs, b"".join((*parts, tail[at:])), placed

    def encode(
        self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature
    ) -> HttpResponse | QuickResponse:
        if not self.places:
            return HttpCall.encode(self, request, outputs, model)
        described: list[_Output] = []
        tail: list[bytes] = []
        for wanted in request.wanted.outputs:
            array = outputs[wanted.name]
            parameters: dict[str, Parameter] | UnsetType = UNSET
            data: Raw | UnsetType = UNSET
            if wanted.name in self.places:
                # Nothing else is said of it, as by Triton: perf_analyzer takes any parameter for a size of binary data.
                self.regions.write(f"output {wanted.name}", self.places[wanted.name], binary_codec.encode_tensor(array))
            elif wanted.binary:
                tail.append(binary_codec.encode_tensor(array))
                parameters = {"binary_data_size": len(tail[-1])}
            else:
                data, not_finite = json_codec.encode_tensor(wanted.name, array)
                self.not_finite += not_finite
            datatype = model.outputs[wanted.name].dtype
            described.append(
                _Output(name=wanted.name, datatype=datatype, shape=list(array.shape), parameters=parameters, data=data)
            )
        head = _encoder.encode(
            {
                "model_name": model.name,
                "model_version": model.version,
                **({} if request.id is None else {"id": request.id}),
                "outputs": described,
            }
        )
        if not tail:
            return HttpResponse(body=head)
        return HttpResponse(body=b"".join((head, *tail)), content_type=BINARY, headers=in_binary(head))


def with_regions(asked: HttpCall, regions: Regions) -> HttpCall:
    """`asked` itself, unless it may name a region."""
    length = asked.wishes.header_length
    if asked.body.find(MARK, 0, len(asked.body) if length is None else length) < 0:
        return asked
    fields = {name: getattr(asked, name) for name in HttpCall.__struct_fields__}
    fields["heavy"] = True  # regions may be large, and are read when the request is
    return RegionCall(regions=regions, **fields)


def _places(document: RequestBody) -> Iterator[tuple[str, Place]]:
    for output in document.outputs:
        place = place_of(f"output {output.name}", output.parameters)
        if place is not None:
            yield output.name, place


def place_of(what: str, parameters: Mapping[str, Parameter]) -> Place | None:
    """None when the tensor is not said to lie in a region. Raises InferenceRequestInvalid."""
    region = parameters.get(_REGION)
    if region is None:
        return None
    size, offset = parameters.get(_SIZE), parameters.get(_OFFSET, 0)
    if not isinstance(region, str) or not _whole(size) or not _whole(offset):
        raise InferenceRequestInvalid(
            problem=f"{what}: a place in shared memory has a region, a byte_size and an offset"
        )
    return Place(region=region, offset=cast("int", offset), size=cast("int", size))


def _whole(value: Parameter | None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
