# SPDX-License-Identifier: Apache-2.0
"""Bytes of an HTTP answer -> tensors. Pure, and believes nothing: a server may be another, broken, or no server at all.

Heads and descriptions of tensors repeat from answer to answer, so both are remembered by their very bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType
from msgspec.json import Decoder

from skerry.errors import AnswerNotUnderstood, CallRefused, InferenceRequestInvalid, SkerryError
from skerry.oip import binary_codec, json_codec
from skerry.runtime.datatypes import NUMPY, Array

MAX_HEAD: Final = 64 * 1024
HEAD_END: Final = b"\r\n\r\n"
OK: Final = 200
_MAX_REMEMBERED: Final = 64
_MAX_REMEMBERED_SIZE: Final = 4096
_MAX_RANK: Final = 32
_MAX_DIGITS: Final = 15
_MAX_TEXT: Final = 500
_WHOLE_STATUS: Final = 3
_ALIGNMENT: Final = 64


class Head(Struct, frozen=True, kw_only=True):
    """What of an answer's head matters. `tensors_at` is the Inference-Header-Content-Length, None without one."""

    status: int
    length: int
    tensors_at: int | None
    keep_alive: bool
    retry_after: str = ""


class Result(dict[str, Array]):
    """Outputs by name, in the model's order. Arrays are the caller's own.

    BF16, which numpy lacks, comes in the record type `BF16` of this package; `datatypes` tells. BYTES are objects of `bytes`.
    """

    __slots__ = ("datatypes", "id", "model", "version")

    def __init__(self, *, model: str, version: str, id: str, datatypes: dict[str, str]) -> None:  # noqa: A002 - the protocol's word
        super().__init__()
        self.model = model
        self.version = version
        self.id = id
        self.datatypes = datatypes


class _Tensor(Struct, frozen=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: Raw | UnsetType = UNSET


class _Body(Struct, frozen=True):
    outputs: list[_Tensor]
    model_name: str = ""
    model_version: str = ""
    id: str = ""


class _Binary(Struct, frozen=True):
    """Where a tensor lies, relative to the end of the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    end: int
    dtype: np.dtype[Any] | None  # None = BYTES


class _Layout(Struct, frozen=True):
    """An answer's JSON, checked. `values` are the tensors that came in the JSON itself."""

    body: _Body
    datatypes: dict[str, str]
    binary: list[_Binary]
    values: list[_Tensor]
    size: int  # bytes of all binary tensors


class _Refusal(Struct, frozen=True):
    error: str
    code: str = ""


class NotHttp(ValueError):
    """The bytes are no answer of HTTP/1.1, or one of a form this client does not take."""


_body_decoder: Final = Decoder(_Body)
_refusal_decoder: Final = Decoder(_Refusal)
_any_decoder: Final = Decoder(Any)


class Answers:
    """Reads the answers of one server. Threads may share it, as they may Requests."""

    def __init__(self, url: str, *, max_bytes: int) -> None:
        self._url = url
        self._max_bytes = max_bytes
        self._heads: dict[bytes, Head] = {}
        self._layouts: dict[bytes, _Layout] = {}

    def head(self, text: bytes) -> Head:
        """`text` is everything before the empty line. Raises AnswerNotUnderstood."""
        known = self._heads.get(text)
        if known is not None:
            return known
        try:
            head = _head(text)
        except NotHttp as error:
            raise self.bad(str(error)) from error
        if head.length > self._max_bytes:
            raise self.bad(f"it has {head.length} bytes, at most {self._max_bytes} are taken (max_answer_bytes)")
        _remember(self._heads, text, head)
        return head

    def bad(self, problem: str) -> AnswerNotUnderstood:
        return AnswerNotUnderstood(url=self._url, problem=problem)

    def refusal(self, head: Head, body: memoryview) -> CallRefused:
        """The error an answer other than 200 stands for, whatever its body looks like."""
        try:
            refusal = _refusal_decoder.decode(body)
        except (DecodeError, UnicodeError, RecursionError):
            refusal = _Refusal(bytes(body[:_MAX_TEXT]).decode("utf-8", "replace") or "no reason given")
        return CallRefused(
            url=self._url,
            status=head.status,
            problem=refusal.error[:_MAX_TEXT],
            server_code=refusal.code,
            retry_after=head.retry_after,
        )

    def document(self, head: Head, body: memoryview) -> Any:  # noqa: ANN401 - whatever JSON it is
        """Raises CallRefused, AnswerNotUnderstood."""
        if head.status != OK:
            raise self.refusal(head, body)
        try:
            return _any_decoder.decode(body)
        except (DecodeError, UnicodeError, RecursionError) as error:
            raise self.bad(f"it is not JSON: {error}") from error

    def result(self, head: Head, body: memoryview, wanted: Sequence[str], request_id: str) -> Result:
        """`body` is writable when the arrays may lie in it. Raises CallRefused, AnswerNotUnderstood."""
        if head.status != OK:
            raise self.refusal(head, body)
        layout, tail = self._parted(head, body)
        if request_id and layout.body.id != request_id:
            raise self.bad("it carries the id of another request")
        result = Result(
            model=layout.body.model_name,
            version=layout.body.model_version,
            id=layout.body.id,
            datatypes=layout.datatypes,
        )
        if layout.values:
            for name in layout.datatypes:  # the order of the answer, JSON and binary tensors mixed
                result[name] = _NOTHING
        for tensor in layout.binary:
            result[tensor.name] = self._binary(tensor, tail)
        for value in layout.values:
            result[value.name] = self._value(value)
        for name in wanted:
            if name not in result:
                raise self.bad(f"output {name} was asked for and is not there")
        return result

    def _parted(self, head: Head, body: memoryview) -> tuple[_Layout, memoryview]:
        split = len(body) if head.tensors_at is None else head.tensors_at
        if split > len(body):
            raise self.bad(f"its JSON should have {split} bytes, all of it has {len(body)}")
        layout = self._layout(bytes(body[:split]))
        tail = body[split:]
        if len(tail) != layout.size:
            raise self.bad(f"{len(tail)} bytes follow its JSON, the tensors need {layout.size}")
        return layout, tail

    # --- tensors

    def _layout(self, text: bytes) -> _Layout:
        known = self._layouts.get(text)
        if known is not None:
            return known
        try:
            body = _body_decoder.decode(text)
        except (DecodeError, UnicodeError, RecursionError) as error:
            raise self.bad(f"its JSON is not an answer to infer: {error}") from error
        binary: list[_Binary] = []
        values: list[_Tensor] = []
        at = 0
        for tensor in body.outputs:
            shape = self._shape(tensor)
            size = tensor.parameters.get("binary_data_size")
            if size is None:
                values.append(tensor)
                continue
            binary.append(self._placed(tensor, shape, size, at))
            at = binary[-1].end
        datatypes = {tensor.name: tensor.datatype for tensor in body.outputs}
        if len(datatypes) != len(body.outputs):
            raise self.bad("an output is there twice")
        layout = _Layout(body, datatypes, binary, values, at)
        if not values:
            _remember(self._layouts, text, layout)
        return layout

    def _shape(self, tensor: _Tensor) -> tuple[int, ...]:
        if tensor.datatype not in NUMPY:
            raise self.bad(f"output {tensor.name}: there is no datatype {tensor.datatype}")
        if len(tensor.shape) > _MAX_RANK or min(tensor.shape, default=0) < 0:
            raise self.bad(f"output {tensor.name}: {tensor.shape} is not a shape")
        return tuple(tensor.shape)

    def _placed(self, tensor: _Tensor, shape: tuple[int, ...], size: object, at: int) -> _Binary:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= self._max_bytes:
            raise self.bad(f"output {tensor.name}: {size} is no number of bytes")
        if tensor.datatype == "BYTES":
            return _Binary(tensor.name, tensor.datatype, shape, at, at + size, None)
        dtype = NUMPY[tensor.datatype]
        if math.prod(shape) * dtype.itemsize != size:
            raise self.bad(f"output {tensor.name}: {size} bytes are not shape {list(shape)} of {tensor.datatype}")
        return _Binary(tensor.name, tensor.datatype, shape, at, at + size, dtype)

    def _binary(self, tensor: _Binary, tail: memoryview) -> Array:
        part = tail[tensor.start : tensor.end]
        if tensor.dtype is None:
            try:
                return binary_codec.decode_tensor(tensor.name, "BYTES", tensor.shape, part)
            except (InferenceRequestInvalid, ValueError) as error:
                raise self.bad(f"output {tensor.name}: its BYTES are not what its shape says") from error
        try:
            array = (
                np.frombuffer(part, tensor.dtype).reshape(tensor.shape)
                if len(part)
                else np.empty(tensor.shape, tensor.dtype)
            )
        except ValueError as error:  # an axis of 0 beside one that no array can have
            raise self.bad(f"output {tensor.name}: {list(tensor.shape)} is not a shape") from error
        return array if array.flags.writeable and array.flags.aligned else array.copy()

    def _value(self, tensor: _Tensor) -> Array:
        if tensor.data is UNSET:
            raise self.bad(f"output {tensor.name} has no data")
        shape = tuple(tensor.shape)
        try:
            return json_codec.decode_tensor(tensor.name, tensor.datatype, shape, tensor.data)
        except (SkerryError, ValueError) as error:
            array = _with_nulls(tensor)
            if array is None or array.size != math.prod(shape):
                raise self.bad(
                    f"output {tensor.name}: its data is not shape {list(shape)} of {tensor.datatype}"
                ) from error
            return array.reshape(shape)


_floats_decoder: Final = Decoder(list[float | None])
_NOTHING: Final = np.empty(0)


def _with_nulls(tensor: _Tensor) -> Array | None:
    """JSON has no NaN: servers write null, or no valid JSON. None when that is not what is wrong."""
    if tensor.datatype not in {"FP32", "FP64"} or tensor.data is UNSET:
        return None
    try:
        values = _floats_decoder.decode(memoryview(tensor.data))
    except (DecodeError, UnicodeError, RecursionError):
        return None
    return np.array([math.nan if value is None else value for value in values], NUMPY[tensor.datatype])


def room(head: Head) -> memoryview:
    """Where a long body can be received so that its first binary tensor is aligned and belongs to whoever gets it."""
    lead = -(head.tensors_at or 0) % _ALIGNMENT
    return np.empty(lead + head.length, np.uint8).data[lead:]


def _remember(known: dict[bytes, Any], text: bytes, value: object) -> None:
    if len(text) > _MAX_REMEMBERED_SIZE:
        return
    if len(known) >= _MAX_REMEMBERED:
        known.clear()
    known[text] = value


def _head(text: bytes) -> Head:
    """RFC 9112, as far as an answer with a Content-Length goes; chunks and compression are not asked for."""
    first, *lines = text.decode("latin-1").split("\r\n")
    protocol, _, rest = first.partition(" ")
    status = rest[:_WHOLE_STATUS]
    if protocol not in {"HTTP/1.1", "HTTP/1.0"} or not (len(status) == _WHOLE_STATUS and _plain(status)):
        raise NotHttp("it is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key, value = name.lower(), value.strip(" \t")
        if not colon or (
            key in {"content-length", "inference-header-content-length"} and headers.get(key, value) != value
        ):
            raise NotHttp("a header of it is not valid")
        headers[key] = value
    if "transfer-encoding" in headers or headers.get("content-encoding", "identity") != "identity":
        raise NotHttp("it is chunked or compressed, which was not asked for")
    connection = headers.get("connection", "").lower()
    return Head(
        status=int(status),
        length=_number(headers.get("content-length"), 0 if int(status) < OK else None),
        tensors_at=_number(headers["inference-header-content-length"])
        if "inference-header-content-length" in headers
        else None,
        keep_alive="keep-alive" in connection if protocol == "HTTP/1.0" else "close" not in connection,
        retry_after=headers.get("retry-after", ""),
    )


def _plain(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str | None, default: int | None = None) -> int:
    if text is None and default is not None:
        return default
    if text is None or not _plain(text) or len(text) > _MAX_DIGITS:
        raise NotHttp("it does not say how long it is")
    return int(text)
