# SPDX-License-Identifier: Apache-2.0
"""Body of an infer request -> InferRequest, and back for our own questions. Pure; every refusal is InferenceRequestInvalid with a text for the client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
from msgspec import UNSET, DecodeError, Raw
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace

from skerry.bundle.manifest import TensorSpec
from skerry.errors import InferenceRequestInvalid
from skerry.oip import binary_codec, json_codec, likeness
from skerry.oip.messages import (
    InferRequest,
    ModelSignature,
    Parameter,
    RequestBody,
    RequestOutput,
    RequestPlan,
    RequestTensor,
    Selection,
    Source,
    Wanted,
)
from skerry.runtime.datatypes import NUMPY, Array, fits
from skerry.runtime.engine import Sequence

_decoder: Final = Decoder(RequestBody)
_encoder: Final = Encoder()
_MAX_JSON: Final = (
    16 * 1024 * 1024
)  # decoding holds the interpreter, and takes 16 bytes of memory for every byte of text
_MAX_RANK: Final = 16
_MAX_VALUES: Final = 1 << 31
_MAX_TIMEOUT: Final = 1 << 53  # microseconds: 285 years
_MICROSECONDS: Final = 1e-6
_MAX_PRIORITY: Final = 1 << 32
_REMEMBERED: Final = 64  # heads of requests per model
_MAX_SEQUENCE_ID: Final = 256
_MAX_SEQUENCE_NUMBER: Final = (1 << 64) - 1
_MAX_REMEMBERED: Final = 2048  # bytes of one
_SMALL: Final = 16 * 1024
_NO_CLASSES: Final = frozenset({"BYTES", "BOOL", "BF16"})


def _bad(problem: str) -> InferenceRequestInvalid:
    return InferenceRequestInvalid(problem=problem)


def decode(body: bytes, header_length: int | None, model: ModelSignature) -> InferRequest:
    """`header_length` is the Inference-Header-Content-Length, None without one, 0 for a raw request."""
    if header_length == 0:
        return _raw(body, model)
    if header_length is None:
        return _text(body, model)
    if header_length > len(body):
        raise _bad(f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes")
    head = body[:header_length]
    alike, own_id = likeness.without_id(head)
    tail = len(body) - header_length
    plan = model.plans.get(alike)
    if plan is None or plan.tail != tail:
        plan = _plan(memoryview(head), tail, model)
        if all(source.size >= 0 for source in plan.sources):
            _remember(alike, plan, own_id, model)
        own_id = plan.id
    return _read(plan, body, header_length, own_id)


def _text(body: bytes, model: ModelSignature) -> InferRequest:
    """All JSON. What stands around the numbers of an only tensor is remembered like the head of a binary request."""
    numbers = likeness.numbers(body)
    if numbers is None or len(body) > _MAX_JSON:
        unlike = _plan(memoryview(body), None, model)
        return _read(unlike, b"", 0, unlike.id)
    alike, own_id = likeness.without_id(b"\0".join((body[: numbers.start], body[numbers.stop :])))
    plan = model.plans.get(alike)
    if plan is None:
        plan = _plan(memoryview(body), None, model)
        if len(plan.sources) == 1 and bytes(plan.sources[0].data) == body[numbers]:
            bare = replace(plan, sources=(replace(plan.sources[0], data=Raw()),))  # or the whole body would stay
            _remember(alike, bare, own_id, model)
        return _read(plan, b"", 0, plan.id)
    [source] = plan.sources
    array = json_codec.decode_tensor(source.name, source.datatype, source.shape, body[numbers])
    return _request(plan, {source.name: array}, own_id)


def _plan(text: memoryview, tail: int | None, model: ModelSignature) -> RequestPlan:
    """`tail` is the number of bytes behind the JSON, None where there can be none."""
    return plan_of(_document(text), tail, model)


def plan_without_tail(text: bytes, model: ModelSignature) -> RequestPlan:
    """For the JSON of a binary request whose tensors come another way, once or often. Raises InferenceRequestInvalid."""
    document = _document(memoryview(text))
    sizes = (tensor.parameters.get("binary_data_size") for tensor in document.inputs)
    return plan_of(document, sum(size for size in sizes if isinstance(size, int)), model)


def plan_of(document: RequestBody, tail: int | None, model: ModelSignature) -> RequestPlan:
    """What `document` asks of `model`, whatever transport it came by. Raises InferenceRequestInvalid."""
    return RequestPlan(
        sources=tuple(_sources(document, tail, model)),
        wanted=_wanted(document, model),
        tail=tail or 0,
        id=None if document.id is UNSET else document.id,
        timeout=_timeout(document.parameters),
        priority=_priority(document.parameters),
        sequence=sequence_of(document.parameters) if model.io.state else None,
    )


def _remember(alike: bytes, plan: RequestPlan, own_id: str | None, model: ModelSignature) -> None:
    """Unless it says what is this request's alone and was not cut out of `alike`."""
    if len(alike) > _MAX_REMEMBERED or plan.id != own_id or plan.sequence:
        return
    if len(model.plans) >= _REMEMBERED:
        model.plans.clear()
    model.plans[alike] = replace(plan, id=None)


def _read(plan: RequestPlan, body: bytes, at: int, request_id: str | None) -> InferRequest:
    """Binary tensors begin at `at`. Small ones are cut out, which aligns them at no more than the price of a view."""
    inputs: dict[str, Array] = {}
    for source in plan.sources:
        if source.size < 0:
            inputs[source.name] = json_codec.decode_tensor(source.name, source.datatype, source.shape, source.data)
            continue
        end = at + source.size
        data = body[at:end] if source.size <= _SMALL else memoryview(body)[at:end]
        inputs[source.name] = binary_codec.decode_tensor(source.name, source.datatype, source.shape, data)
        at = end
    return _request(plan, inputs, request_id)


def _request(plan: RequestPlan, inputs: dict[str, Array], request_id: str | None) -> InferRequest:
    return InferRequest(
        inputs=inputs,
        wanted=plan.wanted,
        id=request_id,
        timeout=plan.timeout,
        priority=plan.priority,
        sequence=plan.sequence,
    )


def encode(inputs: Mapping[str, Array], model: ModelSignature) -> tuple[bytes, int]:
    """A request for `inputs` in binary form, as a client would send it: (body, Inference-Header-Content-Length)."""
    tail = [binary_codec.encode_tensor(inputs[spec.name]) for spec in model.io.inputs]
    tensors = [
        RequestTensor(
            name=spec.name,
            shape=list(inputs[spec.name].shape),
            datatype=spec.dtype,
            parameters={"binary_data_size": len(data)},
        )
        for spec, data in zip(model.io.inputs, tail, strict=True)
    ]
    head = _encoder.encode(RequestBody(inputs=tensors, parameters={"binary_data_output": True}))
    return b"".join([head, *tail]), len(head)


def _document(text: memoryview) -> RequestBody:
    if len(text) > _MAX_JSON:
        raise _bad(f"{len(text)} bytes of JSON, at most {_MAX_JSON} are taken: send large tensors as binary data")
    try:
        return _decoder.decode(text)
    except (DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise _bad(f"the request is not valid: {error}") from error


def _timeout(parameters: dict[str, Parameter]) -> float:
    value = _whole(parameters.get("timeout", 0), _MAX_TIMEOUT)
    if value is None:
        raise _bad(f"parameter timeout must be a number of microseconds, at most {_MAX_TIMEOUT}")
    return value * _MICROSECONDS


def _priority(parameters: dict[str, Parameter]) -> int:
    value = _whole(parameters.get("priority", 0), _MAX_PRIORITY)
    if value is None:
        raise _bad("parameter priority must be a whole number: 1 goes first, 0 is the default")
    return value


def sequence_of(parameters: Mapping[str, Parameter]) -> Sequence | None:
    """None for a request that names none: an id of 0 or "" is none."""
    identifier = parameters.get("sequence_id", 0)
    start, end = parameters.get("sequence_start", False), parameters.get("sequence_end", False)
    if not isinstance(start, bool) or not isinstance(end, bool):
        raise _bad("parameters sequence_start and sequence_end are true or false")
    if isinstance(identifier, str):
        if len(identifier) > _MAX_SEQUENCE_ID:
            raise _bad(f"parameter sequence_id has more than {_MAX_SEQUENCE_ID} characters")
    else:
        number = _whole(identifier, _MAX_SEQUENCE_NUMBER)
        if number is None:
            raise _bad("parameter sequence_id must be a whole number or a text")
        identifier = int(number)
    if not identifier:
        if start or end:
            raise _bad("a sequence has an id: parameter sequence_id is missing")
        return None
    return Sequence(id=identifier, start=start, end=end)


def _whole(value: Parameter, most: int) -> int | None:
    """JSON knows one kind of number: 1.0 is 1. None for what is no whole number from 0 to `most`."""
    if isinstance(value, bool | str) or not 0 <= value <= most or value != int(value):
        return None
    return int(value)


# --- inputs --------------------------------------------------------------------------------------------------------------


def _sources(document: RequestBody, tail: int | None, model: ModelSignature) -> Iterator[Source]:
    declared = model.inputs
    seen: set[str] = set()
    at = 0
    for tensor in document.inputs:
        if tensor.name in seen:
            raise _bad(f"input {tensor.name} is there twice")
        seen.add(tensor.name)
        shape = _shape(tensor, declared)
        size = _binary_size(tensor, has_tail=tail is not None)
        if size is None or tail is None:
            yield Source(name=tensor.name, datatype=tensor.datatype, shape=shape, data=_json_data(tensor))
            continue
        if at + size > tail:
            raise _bad(f"input {tensor.name}: the body ends before its {size} bytes")
        yield Source(name=tensor.name, datatype=tensor.datatype, shape=shape, size=size)
        at += size
    if tail is not None and at != tail:
        raise _bad(f"{tail - at} bytes follow the last binary tensor")
    for name in declared:
        if name not in seen:
            raise _bad(f"input {name} is missing")


def _shape(tensor: RequestTensor, declared: dict[str, TensorSpec]) -> tuple[int, ...]:
    spec = declared.get(tensor.name)
    if spec is None:
        raise _bad(f"the model has no input {tensor.name}; it has {', '.join(declared)}")
    if tensor.datatype not in NUMPY:
        raise _bad(f"input {tensor.name}: there is no datatype {tensor.datatype}")
    if tensor.datatype != spec.dtype:
        raise _bad(f"input {tensor.name}: datatype is {tensor.datatype}, the model takes {spec.dtype}")
    shape = tuple(tensor.shape)
    # An axis of 0 empties a tensor but must not hide another axis that no array can have.
    if len(shape) > _MAX_RANK or min(shape, default=0) < 0 or math.prod(filter(None, shape)) > _MAX_VALUES:
        raise _bad(f"input {tensor.name}: {tensor.shape} is not a shape")
    if not fits(shape, spec):
        raise _bad(f"input {tensor.name}: shape is {tensor.shape}, the model takes {list(spec.shape)}")
    return shape


def _binary_size(tensor: RequestTensor, *, has_tail: bool) -> int | None:
    size = tensor.parameters.get("binary_data_size")
    if "shared_memory_region" in tensor.parameters:
        raise _bad(f"input {tensor.name}: shared memory is not offered")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise _bad(f"input {tensor.name}: binary_data_size must be a number of bytes")
    if tensor.data is not UNSET:
        raise _bad(f"input {tensor.name}: has both data and binary_data_size")
    if not has_tail:
        raise _bad(f"input {tensor.name}: binary data needs the header Inference-Header-Content-Length")
    return size


def _json_data(tensor: RequestTensor) -> Raw:
    if tensor.data is UNSET:
        raise _bad(f"input {tensor.name}: has neither data nor binary_data_size")
    if tensor.datatype in json_codec.NO_JSON:
        raise _bad(f"input {tensor.name}: {tensor.datatype} has no JSON form, send it as binary data")
    return tensor.data


# --- outputs -------------------------------------------------------------------------------------------------------------


def _wanted(document: RequestBody, model: ModelSignature) -> Selection:
    binary = _flag(document.parameters, "binary_data_output", default=False)
    asked: dict[str, RequestOutput] = {}
    for output in document.outputs:
        if output.name in asked:
            raise _bad(f"output {output.name} is asked for twice")
        asked[output.name] = output
    for name in asked:
        if name not in model.outputs:
            raise _bad(f"the model has no output {name}; it has {', '.join(model.outputs)}")
    if not asked:
        asked = {name: RequestOutput(name) for name in model.outputs}
    return select(_checked(spec, asked[name], default=binary) for name, spec in model.outputs.items() if name in asked)


def select(outputs: Iterable[Wanted]) -> Selection:
    chosen = tuple(outputs)
    return Selection(
        outputs=chosen,
        binary=all(wanted.binary for wanted in chosen),
        classes=any(wanted.classes for wanted in chosen),
    )


def again(request: InferRequest) -> InferRequest:
    """The same to be answered by another version: what is remembered of answers is in the name of the first."""
    return replace(request, wanted=select(request.wanted.outputs))


def _flag(parameters: dict[str, Parameter], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _bad(f"parameter {name} must be true or false")
    return value


def _checked(spec: TensorSpec, output: RequestOutput, *, default: bool) -> Wanted:
    if "shared_memory_region" in output.parameters:
        raise _bad(f"output {output.name}: shared_memory_region is not offered")
    binary = _flag(output.parameters, "binary_data", default=default)
    classes = _classes(spec, output)
    if not binary and not classes and spec.dtype in json_codec.NO_JSON:
        raise _bad(f"output {spec.name}: {spec.dtype} has no JSON form, ask for binary data")
    return Wanted(name=spec.name, binary=binary, classes=classes)


def _classes(spec: TensorSpec, output: RequestOutput) -> int:
    if "classification" not in output.parameters:
        return 0
    count = _whole(output.parameters["classification"], _MAX_VALUES)
    if not count:
        raise _bad(f"output {spec.name}: classification must be how many classes are wanted, at least 1")
    if spec.dtype in _NO_CLASSES:
        raise _bad(f"output {spec.name}: {spec.dtype} has no largest value")
    return count


# --- raw request ---------------------------------------------------------------------------------------------------------


def _raw(body: bytes, model: ModelSignature) -> InferRequest:
    """The body is the only input's bytes; the answer is binary."""
    if len(model.io.inputs) != 1:
        raise _bad("a raw request needs a model with exactly one input")
    spec = model.io.inputs[0]
    wanted = select(Wanted(name=output.name, binary=True) for output in model.io.outputs)
    if spec.dtype == "BYTES":
        return InferRequest(inputs={spec.name: _raw_string(body, spec)}, wanted=wanted)
    shape = tuple(_raw_shape(body, spec))
    array = binary_codec.decode_tensor(spec.name, spec.dtype, shape, memoryview(body))
    return InferRequest(inputs={spec.name: array}, wanted=wanted)


def _raw_string(body: bytes, spec: TensorSpec) -> Array:
    """A raw BYTES request is one element without a length in front."""
    shape = tuple(1 if axis == -1 else axis for axis in spec.shape)
    if any(axis != 1 for axis in shape):
        raise _bad(f"input {spec.name}: a raw BYTES request is one element, the model takes {list(spec.shape)}")
    array = np.empty(1, dtype=object)
    array[0] = body
    return array.reshape(shape)


def _raw_shape(body: bytes, spec: TensorSpec) -> Iterator[int]:
    """Batch 1 when more than one axis is open; what is still open follows from the number of bytes."""
    open_axes = [index for index, axis in enumerate(spec.shape) if axis == -1]
    fixed = 1
    for axis in spec.shape:
        fixed *= axis if axis != -1 else 1
    if len(open_axes) > 1 and open_axes[0] == 0:
        open_axes = open_axes[1:]
    if len(open_axes) > 1:
        raise _bad(f"input {spec.name}: shape {list(spec.shape)} cannot be told from a raw request")
    values = len(body) // NUMPY[spec.dtype].itemsize
    for index, axis in enumerate(spec.shape):
        if axis != -1:
            yield axis
        else:
            yield values // fixed if index in open_axes and fixed else 1
