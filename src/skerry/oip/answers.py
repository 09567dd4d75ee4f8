# SPDX-License-Identifier: Apache-2.0
"""Outputs of the engine -> body of an infer answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, Raw, UnsetType
from msgspec.json import Encoder

from skerry.oip import binary_codec, json_codec
from skerry.oip.messages import AnswerBody, AnswerTensor, InferAnswer, InferRequest, ModelSignature, Selection
from skerry.runtime.datatypes import Array

_encoder: Final = Encoder()
_REMEMBERED: Final = 16  # shapes of answers per kind of request


def encode(request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> InferAnswer:
    """Raises InferenceRequestInvalid when a value asked for as JSON has no JSON form."""
    if request.wanted.binary:
        return _binary(request, outputs, model)
    tensors: list[AnswerTensor] = []
    tail: list[bytes] = []
    not_finite = 0
    for wanted in request.wanted.outputs:
        array = outputs[wanted.name]
        parameters: dict[str, int] | UnsetType = UNSET
        data: Raw | UnsetType = UNSET
        if wanted.binary:
            tail.append(binary_codec.encode_tensor(array))
            parameters = {"binary_data_size": len(tail[-1])}
        else:
            data, odd = json_codec.encode_tensor(wanted.name, array)
            not_finite += odd
        tensors.append(
            AnswerTensor(
                name=wanted.name,
                datatype=model.outputs[wanted.name].dtype,
                shape=list(array.shape),
                parameters=parameters,
                data=data,
            )
        )
    head = _encoder.encode(
        AnswerBody(
            model_name=model.name,
            model_version=model.version,
            outputs=tensors,
            id=UNSET if request.id is None else request.id,
        )
    )
    if not tail:
        return InferAnswer(body=head, header_length=None, not_finite=not_finite)
    return InferAnswer(body=b"".join([head, *tail]), header_length=len(head), not_finite=not_finite)


def _binary(request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> InferAnswer:
    """All outputs as bytes: then the JSON depends on nothing but their shapes, and is remembered."""
    arrays = [outputs[wanted.name] for wanted in request.wanted.outputs]
    tail = [binary_codec.encode_tensor(array) for array in arrays]
    if any(array.dtype == object for array in arrays):
        head = _binary_head(request.wanted, arrays, tail, model)
    else:
        shapes = tuple(array.shape for array in arrays)
        known = request.wanted.heads.get(shapes)
        head = known if known is not None else _binary_head(request.wanted, arrays, tail, model)
        if known is None and len(request.wanted.heads) < _REMEMBERED:
            request.wanted.heads[shapes] = head
    if request.id is not None:
        head = b"".join((head[:-1], b',"id":', _encoder.encode(request.id), b"}"))
    return InferAnswer(body=b"".join([head, *tail]), header_length=len(head))


def _binary_head(wanted: Selection, arrays: list[Array], tail: list[bytes], model: ModelSignature) -> bytes:
    tensors = [
        AnswerTensor(
            name=output.name,
            datatype=model.outputs[output.name].dtype,
            shape=list(array.shape),
            parameters={"binary_data_size": len(data)},
        )
        for output, array, data in zip(wanted.outputs, arrays, tail, strict=True)
    ]
    return _encoder.encode(AnswerBody(model_name=model.name, model_version=model.version, outputs=tensors))
