# SPDX-License-Identifier: Apache-2.0
"""The outermost fields of an infer request, found without parsing what is in them: tensors stay where they arrived.

Protobuf's wire format (protobuf.dev/programming-guides/encoding): a varint of field number and wire type, then a varint
or a length and that many bytes. Whatever is not looked for stays in the head, which protobuf parses.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from skerry.errors import InferenceRequestInvalid

_NAME: Final = 0x0A
_VERSION: Final = 0x12
_ID: Final = 0x1A
_RAW_INPUT: Final = 0x3A
_TAKEN_OUT: Final = frozenset({_ID, _RAW_INPUT})
ID: Final = b"\x1a"
RAW_OUTPUT: Final = b"\x32"  # raw_output_contents, field 6
_MORE: Final = 0x80
_LENGTH: Final = 2
_FIXED: Final = {1: 8, 5: 4}  # wire type -> bytes
_MAX_FIELDS: Final = 4096  # a message has to be walked through on the loop's thread
_MAX_VARINT: Final = 10
_REMEMBERED: Final = 64  # layouts
_MAX_REMEMBERED: Final = 2048  # bytes of a head
_MAX_SEGMENTS: Final = 16  # inputs


class Parts(Struct, frozen=True, kw_only=True):
    """`head` is the message without the request's id and without `raw`, and so the same for every request of a client."""

    name: str
    version: str
    id: bytes
    head: bytes
    raw: tuple[memoryview, ...]


def _bad(problem: str) -> InferenceRequestInvalid:
    return InferenceRequestInvalid(problem=f"the message is not a ModelInferRequest: {problem}")


class _Layout(Struct, frozen=True, kw_only=True):
    """Of a message that was split before: what it held beside `raw`, and where that lies."""

    fixed: tuple[tuple[int, int, bytes], ...]  # begin, end and content of everything else
    raw: tuple[tuple[int, int], ...]
    parts: Parts


_layouts: Final[dict[int, _Layout]] = {}
"""By the length of the message: a client's next request differs from its last in the values alone."""


def split(message: bytes | bytearray) -> Parts:
    """Raises InferenceRequestInvalid for what is no protobuf message, or has no end of fields."""
    layout = _layouts.get(len(message))
    if layout is not None:
        for begin, end, content in layout.fixed:
            if message[begin:end] != content:
                break
        else:
            view = memoryview(message).toreadonly()
            known = layout.parts
            return Parts(
                name=known.name,
                version=known.version,
                id=known.id,
                head=known.head,
                raw=tuple([view[begin:end] for begin, end in layout.raw]),
            )
    return _split(message)


def _split(message: bytes | bytearray) -> Parts:
    view = memoryview(message).toreadonly()
    end = len(message)
    last = {_NAME: view[:0], _VERSION: view[:0], _ID: view[:0]}  # of a field that comes twice the last one counts
    raw: list[tuple[int, int]] = []
    head: list[memoryview] = []
    at = kept = fields = 0
    while at < end and fields <= _MAX_FIELDS:
        start = at
        tag = message[at]
        at, size = _sized(message, at, end)
        stop = at + size
        if stop > end:
            raise _bad("it ends inside a field")
        if tag in _TAKEN_OUT:
            head.append(view[kept:start])
            kept = stop
        if tag == _RAW_INPUT:
            raw.append((at, stop))
        elif tag in last:
            last[tag] = view[at:stop]
        at = stop
        fields += 1
    if at < end:
        raise _bad(f"it has more than {_MAX_FIELDS} fields")
    head.append(view[kept:end])
    parts = Parts(
        name=_text(last[_NAME]),
        version=_text(last[_VERSION]),
        id=bytes(last[_ID]),
        head=b"".join(head),
        raw=tuple([view[begin:stop] for begin, stop in raw]),
    )
    _remember(message, raw, parts)
    return parts


def _remember(message: bytes | bytearray, raw: list[tuple[int, int]], parts: Parts) -> None:
    """Not where the client numbers its requests, nor where the values are in the head."""
    if parts.id or not raw or len(parts.head) > _MAX_REMEMBERED or len(raw) > _MAX_SEGMENTS:
        return
    edges = [0, *(edge for place in raw for edge in place), len(message)]
    fixed = tuple(
        (begin, end, bytes(message[begin:end]))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
        if begin < end
    )
    if len(_layouts) >= _REMEMBERED:
        _layouts.clear()
    _layouts[len(message)] = _Layout(
        fixed=fixed,
        raw=tuple(raw),
        parts=Parts(name=parts.name, version=parts.version, id=b"", head=parts.head, raw=()),
    )


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise _bad("the model's name is not UTF-8") from error


def _sized(message: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """Position and size of the value of the field that begins at `at`."""
    tag = message[at]
    after = at + 1
    if tag & _MORE:
        tag, after = varint(message, at, end)
        if tag < _MORE:
            raise _bad("a field number is written in more bytes than it needs")
    kind = tag & 7
    if tag >> 3 == 0:
        raise _bad("there is no field 0")
    if kind == _LENGTH:
        if after < end and message[after] < _MORE:
            return after + 1, message[after]
        size, after = varint(message, after, end)
        return after, size
    if kind == 0:
        _, stop = varint(message, after, end)
        return after, stop - after
    if kind not in _FIXED:
        raise _bad(f"it has a field of wire type {kind}")
    return after, _FIXED[kind]


def varint(message: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """(value, position behind it)."""
    value = shift = 0
    for position in range(at, min(end, at + _MAX_VARINT)):
        byte = message[position]
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            return value, position + 1
        shift += 7
    raise _bad("a number does not end")


def length(size: int) -> bytes:
    """`size` as a varint."""
    if size < _MORE:
        return bytes((size,))
    out = bytearray()
    while size >= _MORE:
        out.append(size & 0x7F | _MORE)
        size >>= 7
    out.append(size)
    return bytes(out)


def names(beginning: bytes, *, whole: bool) -> tuple[str, str]:
    """Model name and version from the beginning of a message, where every protobuf library puts them.

    `whole` when nothing follows. Raises InferenceRequestInvalid when there may be more of them behind.
    """
    end = len(beginning)
    at = 0
    found = {_NAME: b"", _VERSION: b""}
    while at < end and beginning[at] in found:
        tag = beginning[at]
        at, size = _sized(beginning, at, end)
        found[tag] = beginning[at : at + size]
        at += size
    if at > end or (at == end and not whole):
        raise _bad("the model's name is too long")
    return _text(memoryview(found[_NAME])), _text(memoryview(found[_VERSION]))
