# SPDX-License-Identifier: Apache-2.0
"""Header blocks of requests to what they ask for (RFC 7541, RFC 9113 section 8, gRPC over HTTP/2), and blocks of answers.

A client sends the same block for every call of a method once its names are in the dynamic table. As long as that table
does not change, the same bytes mean the same headers, so what a block means is remembered by its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpack import Decoder, HPACKError
from hpack.exceptions import OversizedHeaderListError
from hpack.table import HeaderTable
from msgspec import Struct

from skerry.serve.grpc.frames import ConnectionFault, ErrorCode
from skerry.serve.grpc.status import GrpcStatus

TABLE_SIZE: Final = 4096
_RESIZE: Final = 0x20  # pattern of a dynamic table size update, in the upper three bits
_RESIZE_MASK: Final = 0xE0
_REMEMBERED: Final = 64
_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_PSEUDO: Final = frozenset({b":method", b":path", b":scheme", b":authority"})
_REQUIRED: Final = frozenset({b":method", b":path", b":scheme"})
_TIMEOUT_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MAX_TIMEOUT_DIGITS: Final = 8
_MAX_LENGTH_DIGITS: Final = 15
_AT_ONCE: Final = 1e-9  # a timeout of 0: no timeout is said by leaving it out
_CONTENT_TYPE: Final = b"application/grpc"


class Malformed(Struct, frozen=True):
    """Not a request of HTTP/2: the stream is reset."""

    problem: str


class Trailers(Struct, frozen=True):
    """Not a request: fields after a message."""


class NotGrpc(Struct, frozen=True):
    """A request of HTTP/2, not of gRPC: answered with an HTTP status."""

    status: int
    problem: str


class Refusal(Struct, frozen=True):
    """A call of gRPC that cannot be taken."""

    status: GrpcStatus
    problem: str


class Ask(Struct, frozen=True, kw_only=True):
    """A call as its headers announce it. `timeout` in seconds, None without one; `encoding` is that of its message.

    `length` is that of all its DATA where the headers say it.
    """

    path: str
    length: int | None = None
    timeout: float | None = None
    encoding: str = ""


Asked = Ask | Refusal | NotGrpc | Malformed | Trailers


class _Table(HeaderTable):
    """Counts its changes."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


class HeaderReader:
    """The decoding side of one connection. `limit` is in bytes of a decoded list as RFC 9113 section 6.5.2 counts them."""

    def __init__(self, limit: int) -> None:
        self._table = _Table()
        self._decoder = Decoder(max_header_list_size=limit)
        self._decoder.header_table = self._table
        self.known: dict[bytes, Asked] = {}
        """Blocks whose meaning has not changed since; the caller looks here first."""

    def read(self, block: bytes) -> Asked:
        """Raises ConnectionFault when the two sides no longer agree about the table."""
        before = self._table.changes
        try:
            headers = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too large") from error
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "the headers cannot be decoded") from error
        asked = interpret(headers)
        if self._table.changes != before or (block and block[0] & _RESIZE_MASK == _RESIZE):
            self.known.clear()
        else:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[block] = asked
        return asked


def interpret(headers: Iterable[tuple[bytes, bytes]]) -> Asked:
    fields: dict[bytes, bytes] = {}
    pseudo_over = False
    for name, value in headers:
        if name[:1] == b":":
            if pseudo_over or name not in _PSEUDO or name in fields:
                return Malformed("a pseudo-header is unknown, repeated or not in front")
        else:
            pseudo_over = True
            problem = _field_problem(name, value)
            if problem:
                return Malformed(problem)
        fields[name] = value
    if fields.keys().isdisjoint(_PSEUDO):
        return Trailers()
    if not fields.keys() >= _REQUIRED or not fields[b":path"]:
        return Malformed("a pseudo-header is missing")
    return _call(fields)


def _field_problem(name: bytes, value: bytes) -> str:
    if not name or name != name.lower() or any(byte <= 0x20 or byte >= 0x7F for byte in name):  # noqa: PLR2004 - RFC 9113 section 8.2.1
        return "a header's name is not valid"
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
        return "a header of HTTP/1.1 connections"
    if any(byte in b"\0\r\n" for byte in value):
        return "a header's value is not valid"
    return ""


def _call(fields: dict[bytes, bytes]) -> Asked:
    if fields[b":method"] != b"POST":
        return NotGrpc(405, "over HTTP/2 there is gRPC only, and that is POST; use HTTP/1.1 for the rest")
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip()
    if kind not in {_CONTENT_TYPE, _CONTENT_TYPE + b"+proto"}:
        return NotGrpc(415, "over HTTP/2 there is gRPC only: content-type application/grpc; use HTTP/1.1 for the rest")
    if b"te" not in fields:
        return Refusal(GrpcStatus.INTERNAL, "te: trailers is missing: is there a proxy between that drops trailers?")
    try:
        path = fields[b":path"].decode("ascii")
        return Ask(
            path=path,
            timeout=timeout_of(fields.get(b"grpc-timeout")),
            encoding=_encoding(fields),
            length=_length(fields.get(b"content-length")),
        )
    except ValueError as error:
        return Refusal(GrpcStatus.INVALID_ARGUMENT, f"a header is not valid: {error}")


def _encoding(fields: dict[bytes, bytes]) -> str:
    name = fields.get(b"grpc-encoding", b"").decode("ascii")
    return "" if name == "identity" else name


def _length(value: bytes | None) -> int | None:
    """Raises ValueError."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise ValueError("content-length is no number of bytes")
    return int(value)


def timeout_of(value: bytes | None) -> float | None:
    """`grpc-timeout`: at most 8 digits and a unit, in seconds. Raises ValueError."""
    if value is None:
        return None
    text = value.decode("ascii")
    digits, unit = text[:-1], text[-1:]
    if not (digits.isdigit() and len(digits) <= _MAX_TIMEOUT_DIGITS and unit in _TIMEOUT_UNITS):
        raise ValueError(f"grpc-timeout is {text[:20]!r}")
    return int(digits) * _TIMEOUT_UNITS[unit] or _AT_ONCE


# --- answers: literals without indexing (RFC 7541 section 6.2.2), so that nothing has to be remembered ---------------------

_STATUS: Final = {
    200: b"\x88",
    405: b"\x08\x03405",
    415: b"\x08\x03415",
    431: b"\x08\x03431",
}  # :status is 8 of the static table


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    """A string without Huffman coding: its length in a 7 bit prefix."""
    size = len(text)
    if size < 0x7F:  # noqa: PLR2004 - RFC 7541 section 5.1
        return bytes((size,)) + text
    out = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:  # noqa: PLR2004 - see above
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + text


OPENING: Final = b"".join(
    (
        _STATUS[200],
        _literal(b"content-type", _CONTENT_TYPE),
        _literal(b"grpc-accept-encoding", b"identity,deflate,gzip"),
    )
)
"""Block of an answer's first HEADERS."""

CLOSING: Final = _literal(b"grpc-status", b"0")
"""Block of the trailers of a call that went well."""

_MAX_TEXT: Final = 1024


def refusal(status: GrpcStatus, text: str, pushback: int | None = None) -> bytes:
    """Block of an answer that is trailers only. `pushback` in milliseconds: when to try again."""
    block = [OPENING, _literal(b"grpc-status", b"%d" % status), _literal(b"grpc-message", percent(text[:_MAX_TEXT]))]
    if pushback is not None:
        block.append(_literal(b"grpc-retry-pushback-ms", b"%d" % pushback))
    return b"".join(block)


def http_refusal(status: int, size: int) -> bytes:
    """Block of an answer to what is no gRPC, followed by `size` bytes of plain text."""
    return b"".join(
        (
            _STATUS[status],
            _literal(b"content-type", b"text/plain"),
            _literal(b"content-length", b"%d" % size),
            _literal(b"allow", b"POST") if status == 405 else b"",  # noqa: PLR2004 - Method Not Allowed
        )
    )


def percent(text: str) -> bytes:
    """`grpc-message`: printable ASCII but `%` as it is, every other byte of the UTF-8 as %XX."""
    return b"".join(
        b"%c" % byte if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte  # noqa: PLR2004 - gRPC's table
        for byte in text.encode(errors="replace")
    )
