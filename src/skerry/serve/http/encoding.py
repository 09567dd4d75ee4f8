# SPDX-License-Identifier: Apache-2.0
"""Content-Encoding of requests and answers: gzip and deflate (the zlib format, RFC 9110 section 8.4.1). Pure."""

from __future__ import annotations

import zlib
from typing import Final

from skerry.errors import InferenceRequestInvalid, RequestTooLarge, UnsupportedEncoding

_WINDOW: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_WORTH_IT: Final = 1024  # bytes below which compressing an answer costs more than it saves
_LEVEL: Final = 1


def inflate(body: bytes, encoding: str, *, limit: int) -> bytes:
    """Raises UnsupportedEncoding, InferenceRequestInvalid, and RequestTooLarge before more than `limit` bytes exist."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in _WINDOW:
        raise UnsupportedEncoding(encoding=encoding)
    stream = zlib.decompressobj(wbits=_WINDOW[name])
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise InferenceRequestInvalid(problem=f"the body is not valid {name}: {error}") from error
    if len(plain) > limit:
        raise RequestTooLarge(limit=limit)
    if not stream.eof or stream.unused_data:
        raise InferenceRequestInvalid(problem=f"the {name} body is cut short or followed by something else")
    return plain


def beginning(body: bytes, encoding: str, size: int) -> bytes:
    """The first bytes of an encoded body, at most `size`. Raises InferenceRequestInvalid."""
    try:
        return zlib.decompressobj(wbits=_WINDOW[encoding]).decompress(body, size)
    except zlib.error as error:
        raise InferenceRequestInvalid(problem=f"the body is not valid {encoding}: {error}") from error


def choose(accepted: str, size: int) -> str:
    """The encoding for an answer of `size` bytes to a client with this Accept-Encoding; empty = as it is."""
    if size < _WORTH_IT or not accepted:
        return ""
    offers = {}
    for offer in accepted.lower().split(","):
        name, _, weight = offer.partition(";")
        offers[name.strip()] = weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return next((name for name in ("gzip", "deflate") if offers.get(name)), "")


def deflate(body: bytes, encoding: str) -> bytes:
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW[encoding])
    return stream.compress(body) + stream.flush()
