# SPDX-License-Identifier: Apache-2.0
"""ModelInferRequest -> InferRequest. Pure; every refusal is InferenceRequestInvalid with a text for the client."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from skerry.errors import InferenceRequestInvalid
from skerry.oip import binary_codec
from skerry.oip.grpc.descriptors import Message, message_class
from skerry.oip.grpc.wire import Parts
from skerry.oip.messages import (
    InferRequest,
    ModelSignature,
    Parameter,
    RequestBody,
    RequestOutput,
    RequestPlan,
    RequestTensor,
    Source,
)
from skerry.oip.requests import plan_of
from skerry.runtime.datatypes import NUMPY, Array

_REMEMBERED: Final = 64  # heads of requests per model
_MAX_REMEMBERED: Final = 2048  # bytes of one
_MARK: Final = b"\0"  # no JSON begins with it, so a head of ours is never taken for one of HTTP's

CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype -> field of InferTensorContents. FP16 and BF16 have none: they travel raw."""


def _bad(problem: str) -> InferenceRequestInvalid:
    return InferenceRequestInvalid(problem=problem)


def parse(name: str, data: bytes | memoryview) -> Message:
    """A message of class `name`. Raises InferenceRequestInvalid."""
    try:
        return message_class(name).FromString(bytes(data))
    except (DecodeError, struct.error) as error:
        raise _bad(f"the message is not a {name}") from error


def decode(parts: Parts, model: ModelSignature) -> InferRequest:
    key = _MARK + parts.head
    plan = model.plans.get(key)
    if plan is not None:
        return _read(plan, parts, _raw(plan, parts.raw))
    message = parse("ModelInferRequest", parts.head)
    typed = any(tensor.HasField("contents") for tensor in message.inputs)
    if typed and parts.raw:
        raise _bad("the request has both raw_input_contents and contents")
    plan = plan_of(_document(message, raw=not typed or _has_untyped(message, model)), 0, model)
    if typed:
        return _read(plan, parts, _typed(plan, message))
    _remember(key, plan, model)
    return _read(plan, parts, _raw(plan, parts.raw))


def _read(plan: RequestPlan, parts: Parts, inputs: Iterator[tuple[str, Array]]) -> InferRequest:
    try:
        identifier = parts.id.decode()
    except UnicodeDecodeError as error:
        raise _bad("id is not UTF-8") from error
    return InferRequest(
        inputs=dict(inputs),
        wanted=plan.wanted,
        id=identifier or None,
        timeout=plan.timeout,
        priority=plan.priority,
        sequence=plan.sequence,
    )


def _remember(key: bytes, plan: RequestPlan, model: ModelSignature) -> None:
    if len(key) > _MAX_REMEMBERED or plan.sequence:
        return
    if len(model.plans) >= _REMEMBERED:
        model.plans.clear()
    model.plans[key] = plan


# --- the head ------------------------------------------------------------------------------------------------------------


def _has_untyped(message: Message, model: ModelSignature) -> bool:
    """Whether the answer holds an output that can only travel raw."""
    asked = {output.name for output in message.outputs} or set(model.outputs)
    return any(spec.dtype not in CONTENTS for spec in model.io.outputs if spec.name in asked)


def _document(message: Message, *, raw: bool) -> RequestBody:
    """The head in the words of the one check all transports share. Sizes are 0: the values are looked at when read.

    `raw` is the form of all outputs.
    """
    return RequestBody(
        inputs=[
            RequestTensor(
                name=tensor.name,
                shape=list(tensor.shape),
                datatype=tensor.datatype,
                parameters=_of_tensor(tensor),
            )
            for tensor in message.inputs
        ],
        outputs=[RequestOutput(name=output.name, parameters=_of_output(output)) for output in message.outputs],
        parameters={**parameters_of(message.parameters), "binary_data_output": raw},
    )


def _of_tensor(tensor: Message) -> dict[str, Parameter]:
    parameters = parameters_of(tensor.parameters)
    if "shared_memory_region" not in parameters:
        parameters["binary_data_size"] = 0
    return parameters


def _of_output(output: Message) -> dict[str, Parameter]:
    """The form of outputs follows that of inputs here: `binary_data` is a word of HTTP."""
    parameters = parameters_of(output.parameters)
    parameters.pop("binary_data", None)
    return parameters


def parameters_of(of: Message) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for name, parameter in of.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise _bad(f"parameter {name} has no value")
        parameters[name] = getattr(parameter, choice)
    return parameters


# --- values --------------------------------------------------------------------------------------------------------------


def _raw(plan: RequestPlan, raw: tuple[memoryview, ...]) -> Iterator[tuple[str, Array]]:
    if len(raw) != len(plan.sources):
        said = "neither raw_input_contents nor contents" if not raw else f"{len(raw)} raw_input_contents"
        raise _bad(f"the request has {said} for {len(plan.sources)} inputs")
    for source, data in zip(plan.sources, raw, strict=True):
        yield source.name, binary_codec.decode_tensor(source.name, source.datatype, source.shape, data)


def _typed(plan: RequestPlan, message: Message) -> Iterator[tuple[str, Array]]:
    for source, tensor in zip(plan.sources, message.inputs, strict=True):
        if not tensor.HasField("contents"):
            raise _bad(f"input {source.name}: has no contents, while another input has")
        yield source.name, _array(source, tensor.contents)


def _array(source: Source, contents: Message) -> Array:
    field = CONTENTS.get(source.datatype)
    if field is None:
        raise _bad(f"input {source.name}: {source.datatype} has no typed form, send it in raw_input_contents")
    odd = [have.name for have, _ in contents.ListFields() if have.name != field]
    if odd:
        raise _bad(f"input {source.name}: {source.datatype} belongs in {field}, there is {odd[0]}")
    values = getattr(contents, field)
    count = 1
    for axis in source.shape:
        count *= axis
    if len(values) != count:
        raise _bad(f"input {source.name}: {len(values)} values do not fit shape {list(source.shape)}")
    return _CONVERT.get(source.datatype, _numbers)(source, values).reshape(source.shape)


def _numbers(source: Source, values: Sequence[Any]) -> Array:
    return np.fromiter(values, NUMPY[source.datatype], len(values))


def _narrow(source: Source, values: Sequence[Any]) -> Array:
    """INT8 to UINT16 travel in 32 bits."""
    wide = np.fromiter(values, np.int64, len(values))
    narrow = wide.astype(NUMPY[source.datatype])
    if not np.array_equal(wide, narrow):
        raise _bad(f"input {source.name}: a value is out of the range of {source.datatype}")
    return narrow


def _strings(_source: Source, values: Sequence[Any]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


_CONVERT: Final[dict[str, Callable[[Source, Sequence[Any]], Array]]] = {
    **dict.fromkeys(("INT8", "INT16", "UINT8", "UINT16"), _narrow),
    "BYTES": _strings,
}
