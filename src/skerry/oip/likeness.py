# SPDX-License-Identifier: Apache-2.0
"""What stays the same from one request of a client to its next, as far as that is plain to see in the bytes. Pure.

A plan remembered under what these return is only ever used for a request of which they return the same: it then differs from
the remembered one in nothing but what was cut out, a string without escapes or a flat list of numbers.
"""

from __future__ import annotations

from typing import Final

_DATA: Final = b'"data":'
_ID: Final = b'"id":'


def without_id(text: bytes) -> tuple[bytes, str | None]:
    """(`text` with the value of its only id cut out, the value); (`text`, None) when there is none or it is not plain."""
    begin = text.find(_ID)
    if begin < 0:
        return text, None
    begin += len(_ID)
    begin += text[begin : begin + 1] == b" "
    end = text.find(b'"', begin + 1)
    value = text[begin + 1 : end]
    plain = text[begin : begin + 1] == b'"' and value.isascii() and b"\\" not in value
    if end < 0 or not plain or text.find(_ID, end) >= 0:
        return text, None
    name = value.decode("ascii")
    return (text[: begin + 1] + text[end:], name) if name.isprintable() else (text, None)


def numbers(body: bytes) -> slice | None:
    """Where the only `data` of a request stands, when it is a flat list of numbers; None whenever that is not plain to see."""
    begin = body.find(_DATA) + len(_DATA)
    if begin < len(_DATA) or body.find(_DATA, begin) >= 0:
        return None
    begin += body[begin : begin + 1] == b" "
    end = body.find(b"]", begin) + 1
    flat = body[begin : begin + 1] == b"[" and body.find(b"[", begin + 1, end) < 0 and body.find(b'"', begin, end) < 0
    return slice(begin, end) if flat and end else None
