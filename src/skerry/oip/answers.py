# SPDX-License-Identifier: Apache-2.0
"""Outputs of the engine -> body of an infer answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, Raw, UnsetType
from msgspec.json import Encoder

from skerry.oip import binary_codec, json_codec
from skerry.oip.messages import AnswerBody, AnswerTensor, InferAnswer, InferRequest, ModelSignature, Selection, Wanted
from skerry.runtime.datatypes import Array

_encoder: Final = Encoder()
_REMEMBERED: Final = 16  # shapes of answers per kind of request


def datatype_of(wanted: Wanted, model: ModelSignature) -> str:
    return "BYTES" if wanted.classes else model.outputs[wanted.name].dtype


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
                datatype=datatype_of(wanted, model),
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
    head, tail = in_parts(request, outputs, model)
    return InferAnswer(body=b"".join([head, *tail]), header_length=len(head))


def in_parts(request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> tuple[bytes, list[bytes]]:
    """(JSON, tensors) of an answer whose outputs are all asked for as bytes.

    Then the JSON depends on nothing but their shapes: it is remembered, and the very same object is given again.
    """
    selection = request.wanted
    arrays = [outputs[wanted.name] for wanted in selection.outputs]
    shapes = tuple([array.shape for array in arrays])
    head = selection.heads.get(shapes)
    tail = [binary_codec.encode_tensor(array) for array in arrays]
    if head is None:
        head = _binary_head(selection, arrays, tail, model)
        fixed = not any(array.dtype == object for array in arrays)  # strings of other lengths have the same shape
        if fixed and len(selection.heads) < _REMEMBERED:
            selection.heads[shapes] = head
    if request.id is not None:
        head = b"".join((head[:-1], b',"id":', _encoder.encode(request.id), b"}"))
    return head, tail


def _binary_head(wanted: Selection, arrays: list[Array], tail: list[bytes], model: ModelSignature) -> bytes:
    tensors = [
        AnswerTensor(
            name=output.name,
            datatype=datatype_of(output, model),
            shape=list(array.shape),
            parameters={"binary_data_size": len(data)},
        )
        for output, array, data in zip(wanted.outputs, arrays, tail, strict=True)
    ]
    return _encoder.encode(AnswerBody(model_name=model.name, model_version=model.version, outputs=tensors))
