# SPDX-License-Identifier: Apache-2.0
"""Tensors -> bytes of an HTTP request. Pure.

Everything before the tensors' own bytes depends on names, shapes, datatypes and options only, so it is made once for each
combination and remembered: a call then costs a look-up and one join.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import quote

import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Encoder

from skerry.client.address import Address
from skerry.errors import CallInvalid, InferenceRequestInvalid
from skerry.oip import binary_codec, json_codec, slot
from skerry.runtime.datatypes import BF16, NUMPY, Array, name_of

Parameter = str | int | float | bool
Buffer = bytes | Array

_encoder: Final = Encoder()
_MAX_REMEMBERED: Final = 256
_MICROSECONDS: Final = 1_000_000
_MAX_TIMEOUT: Final = 1e9  # seconds: 31 years
_RESERVED: Final = frozenset({"timeout", "binary_data_output"})
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e]*")  # RFC 9110 section 5, plain ASCII


class Tensor(Struct, frozen=True):
    """An input in the form that travels, and the protocol's word for what it holds."""

    array: Array
    datatype: str


class Options(Struct, frozen=True, kw_only=True):
    """`outputs` empty = all. `parameters` are those of the request, as pairs; `seconds` is the deadline told to the server."""

    model: str
    version: str = ""
    outputs: tuple[str, ...] = ()
    binary: bool = True
    seconds: float = 30.0
    parameters: tuple[tuple[str, Parameter], ...] = ()

    @property
    def repeatable(self) -> bool:
        """A request of a sequence changes what its model remembers: it must not be run twice."""
        return all(name != "sequence_id" for name, _ in self.parameters)


class Message(Struct, frozen=True):
    """Bytes to send, in order, and how many they are."""

    parts: list[Any]  # bytes and contiguous arrays: whatever has a buffer
    size: int


class _Input(Struct, frozen=True, omit_defaults=True):
    name: str
    shape: Sequence[int]
    datatype: str
    parameters: dict[str, Parameter] | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class _Body(Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str | UnsetType = UNSET
    inputs: list[_Input]
    outputs: list[dict[str, Any]] | UnsetType = UNSET
    parameters: dict[str, Parameter]


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A request without an id as far as it is always the same: `head` is HTTP's and JSON, `size` of the whole."""

    head: bytes
    size: int


@dataclass(kw_only=True)
class Requests:
    """Makes the requests of one client. Threads may share it: what they race for is made twice and equal."""

    address: Address
    headers: Mapping[str, str] = field(default_factory=dict)
    _prepared: dict[Any, _Prepared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = [f"Host: {self.address.authority}", *(f"{name}: {value}" for name, value in self.headers.items())]
        for line in lines:
            if _HEADER.fullmatch(line) is None:
                raise CallInvalid(problem=f"{line!r} is no HTTP header")
        self._fixed = "".join(f"{line}\r\n" for line in lines)

    def get(self, path: str) -> Message:
        head = f"GET {path} HTTP/1.1\r\n{self._fixed}\r\n".encode("ascii")
        return Message([head], len(head))

    def post(self, path: str, body: bytes, *extra: str) -> Message:
        lines = "".join(f"{line}\r\n" for line in extra)
        head = f"POST {path} HTTP/1.1\r\n{self._fixed}{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii")
        return Message([head, body], len(head) + len(body))

    def infer(self, inputs: Mapping[str, Array], options: Options, request_id: str = "") -> Message:
        """Raises CallInvalid for what the protocol has no form for."""
        if request_id or not options.binary or options.parameters:
            return self._build(inputs, options, request_id)[0]
        key = (
            options,
            *[(name, value.dtype, value.shape) for name, value in inputs.items() if type(value) is np.ndarray],
        )
        if len(key) <= len(inputs):  # something is no array
            return self._build(inputs, options, "")[0]
        known = self._prepared.get(key)
        if known is None:
            message, fixed = self._build(inputs, options, "")
            if fixed:
                self._remember(key, _Prepared(head=cast("bytes", message.parts[0]), size=message.size))
            return message
        return Message([known.head, *map(_contiguous, inputs.values())], known.size)

    def _remember(self, key: tuple[Any, ...], prepared: _Prepared) -> None:
        if len(self._prepared) >= _MAX_REMEMBERED:
            self._prepared.clear()
        self._prepared[key] = prepared

    def _build(self, inputs: Mapping[str, Array], options: Options, request_id: str) -> tuple[Message, bool]:
        """Also: whether the next request with arrays like these begins with the same bytes and has the same size."""
        tensors = {name: as_tensor(name, value) for name, value in inputs.items()}
        tail = [_encode(tensor) if options.binary else None for tensor in tensors.values()]
        body = _json(tensors, tail, options, request_id)
        parts = [part for part in tail if part is not None]
        rest = sum(map(_nbytes, parts))
        head = self._infer_head(options, len(body), rest) + body
        fixed = all(tensor.array is inputs[name] and tensor.datatype != "BYTES" for name, tensor in tensors.items())
        return Message([head, *parts], len(head) + rest), fixed

    def slot(self, inputs: Mapping[str, Array], options: Options) -> Message:
        """Asks for a slot in which requests like this one can be repeated (oip/slot.py)."""
        tensors = {name: as_tensor(name, value) for name, value in inputs.items()}
        body = _json(tensors, [tensor.array for tensor in tensors.values()], options, "")
        path = model_path(options.model, options.version) + "/slot"
        return self.post(path, body, "Connection: upgrade", f"Upgrade: {slot.PROTOCOL}")

    def _infer_head(self, options: Options, body: int, tail: int) -> bytes:
        kind = "application/json"
        lengths = f"Content-Length: {body + tail}\r\n"
        if options.binary:
            kind = "application/octet-stream"
            lengths += f"Inference-Header-Content-Length: {body}\r\n"
        path = model_path(options.model, options.version) + "/infer"
        return f"POST {path} HTTP/1.1\r\n{self._fixed}Content-Type: {kind}\r\n{lengths}\r\n".encode("ascii")


def _json(tensors: Mapping[str, Tensor], tail: Sequence[Buffer | None], options: Options, request_id: str) -> bytes:
    """`tail` holds what goes behind the JSON, None for a tensor that goes into it."""
    return _encoder.encode(
        _Body(
            id=request_id or UNSET,
            inputs=[_described(name, tensor, data) for (name, tensor), data in zip(tensors.items(), tail, strict=True)],
            outputs=[{"name": name, "parameters": {"binary_data": options.binary}} for name in options.outputs]
            or UNSET,
            parameters=_parameters(options),
        )
    )


def model_path(model: str, version: str = "") -> str:
    if not model:
        raise CallInvalid(problem="a model has a name")
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


# --- tensors -------------------------------------------------------------------------------------------------------------


def as_tensor(name: str, value: object) -> Tensor:
    """`value` with its datatype, its array in the form that travels: little-endian, BYTES as objects."""
    if isinstance(value, np.generic):
        return as_tensor(name, np.asarray(value))
    if not isinstance(value, np.ndarray):
        raise CallInvalid(problem=f"input {name}: a {type(value).__name__} is no numpy array; make one with a dtype")
    if value.dtype.name == "bfloat16":  # the ml_dtypes package's, which need not be installed here
        return Tensor(value.view(BF16), "BF16")
    if value.dtype.kind in "SUO":
        return Tensor(_texts(name, value), "BYTES")
    datatype = name_of(value.dtype)
    if datatype is None:
        raise CallInvalid(problem=f"input {name}: the protocol has no datatype for {value.dtype}")
    return Tensor(value if value.dtype == NUMPY[datatype] else value.astype(NUMPY[datatype]), datatype)


def _texts(name: str, array: Array) -> Array:
    texts = np.empty(array.size, dtype=object)
    for index, value in enumerate(array.ravel().tolist()):
        if not isinstance(value, str | bytes):
            raise CallInvalid(problem=f"input {name}: a {type(value).__name__} is neither bytes nor text")
        texts[index] = value.encode() if isinstance(value, str) else value
    return texts.reshape(array.shape)


def _contiguous(array: Array) -> Array:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _encode(tensor: Tensor) -> Buffer:
    return binary_codec.encode_tensor(tensor.array) if tensor.datatype == "BYTES" else _contiguous(tensor.array)


def _nbytes(part: Buffer) -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes


def _described(name: str, tensor: Tensor, encoded: Buffer | None) -> _Input:
    shape = tensor.array.shape
    if encoded is not None:
        return _Input(name, shape, tensor.datatype, {"binary_data_size": _nbytes(encoded)})
    return _Input(name, shape, tensor.datatype, data=_as_json(name, tensor))


def _as_json(name: str, tensor: Tensor) -> Raw:
    if tensor.datatype in json_codec.NO_JSON:
        raise CallInvalid(problem=f"input {name}: {tensor.datatype} has no JSON form, send it as binary data")
    try:
        data, not_finite = json_codec.encode_tensor(name, tensor.array)
    except InferenceRequestInvalid as error:
        raise CallInvalid(problem=f"input {name}: bytes that are not UTF-8 have no JSON form") from error
    if not_finite:
        raise CallInvalid(problem=f"input {name}: NaN and infinities have no JSON form, send it as binary data")
    return data


def _parameters(options: Options) -> dict[str, Parameter]:
    if not 0 < options.seconds <= _MAX_TIMEOUT:
        raise CallInvalid(problem=f"a timeout is more than 0 and at most {_MAX_TIMEOUT:g} seconds")
    given = dict(options.parameters)
    for name in _RESERVED & given.keys():
        raise CallInvalid(problem=f"parameter {name} is the client's to set")
    told: dict[str, Parameter] = {"timeout": max(1, int(options.seconds * _MICROSECONDS))}
    if options.binary:
        told["binary_data_output"] = True
    return {**given, **told}
