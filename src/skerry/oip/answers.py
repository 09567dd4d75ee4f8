# SPDX-License-Identifier: Apache-2.0
"""Outputs of the engine -> body of an infer answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, Raw, UnsetType
from msgspec.json import Encoder

from skerry.oip import binary_codec, json_codec
from skerry.oip.messages import AnswerBody, AnswerTensor, InferAnswer, InferRequest, ModelSignature
from skerry.runtime.datatypes import Array

_encoder: Final = Encoder()


def encode(request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> InferAnswer:
    """Raises InferenceRequestInvalid when a value asked for as JSON has no JSON form."""
    tensors: list[AnswerTensor] = []
    tail: list[bytes] = []
    not_finite = 0
    for wanted in request.wanted:
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
