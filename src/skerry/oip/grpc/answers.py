# SPDX-License-Identifier: Apache-2.0
"""Outputs of the engine -> ModelInferResponse. Pure.

Raw by default, one entry per output by position: what Triton does, and all that its client reads. Typed only to a request
with typed contents. What does not depend on the values is made once per kind of request and shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping
from typing import Final

import numpy as np

from skerry.oip import binary_codec
from skerry.oip.answers import datatype_of
from skerry.oip.grpc import wire
from skerry.oip.grpc.descriptors import Message, message_class
from skerry.oip.grpc.requests import CONTENTS
from skerry.oip.messages import InferRequest, ModelSignature, Parameter
from skerry.runtime.datatypes import Array

_REMEMBERED: Final = 16  # shapes of answers per kind of request
_COPY_BELOW: Final = 4096
_MAX_INT64: Final = (1 << 63) - 1
_LITTLE: Final = sys.byteorder == "little"
_Response: Final = message_class("ModelInferResponse")


def encode(
    request: InferRequest,
    outputs: Mapping[str, Array],
    model: ModelSignature,
    parameters: Mapping[str, Parameter] | None = None,
    *,
    elsewhere: Container[str] = (),
) -> list[bytes | memoryview]:
    """The message in parts: large outputs are views of the engine's arrays, not copies.

    The values of outputs `elsewhere`, in shared memory, are not in it: their entries are empty, as Triton has it.
    """
    arrays = [outputs[wanted.name] for wanted in request.wanted.outputs]
    raw = request.wanted.binary
    parts: list[bytes | memoryview] = [_head(request, arrays, model) if raw else _typed(request, arrays, model)]
    if request.id:
        identifier = request.id.encode()
        parts.append(wire.ID + wire.length(len(identifier)) + identifier)
    if parameters:
        parts.append(_parameters(parameters))
    if raw:
        for wanted, array in zip(request.wanted.outputs, arrays, strict=True):
            data = b"" if wanted.name in elsewhere else _data(array)
            parts += (wire.RAW_OUTPUT + wire.length(len(data)), data)
    return parts


def _data(array: Array) -> bytes | memoryview:
    if array.dtype == object or not _LITTLE:
        return binary_codec.encode_tensor(array)
    if array.nbytes < _COPY_BELOW or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def _head(request: InferRequest, arrays: list[Array], model: ModelSignature) -> bytes:
    """Everything but id and values: it depends on nothing but the shapes, and is remembered."""
    heads = request.wanted.heads
    shapes = tuple([array.shape for array in arrays])
    head = heads.get(shapes)
    if head is None:
        head = _response(request, arrays, model).SerializeToString()
        if len(heads) < _REMEMBERED:
            heads[shapes] = head
    return head


def _response(request: InferRequest, arrays: list[Array], model: ModelSignature) -> Message:
    message = _Response(model_name=model.name, model_version=model.version)
    for wanted, array in zip(request.wanted.outputs, arrays, strict=True):
        message.outputs.add(name=wanted.name, datatype=datatype_of(wanted, model), shape=array.shape)
    return message


def _typed(request: InferRequest, arrays: list[Array], model: ModelSignature) -> bytes:
    message = _response(request, arrays, model)
    for tensor, array in zip(message.outputs, arrays, strict=True):
        tensor.contents.SetInParent()
        getattr(tensor.contents, CONTENTS[tensor.datatype]).extend(array.ravel().tolist())
    return bytes(message.SerializeToString())


def _parameters(parameters: Mapping[str, Parameter]) -> bytes:
    message = _Response()
    for name, value in parameters.items():
        entry = message.parameters[name]
        if isinstance(value, bool):
            entry.bool_param = value
        elif isinstance(value, int):
            if value > _MAX_INT64:
                entry.uint64_param = value
            else:
                entry.int64_param = value
        elif isinstance(value, float):
            entry.double_param = value
        else:
            entry.string_param = value
    return bytes(message.SerializeToString())
