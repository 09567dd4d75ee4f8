# SPDX-License-Identifier: Apache-2.0
"""An infer request that came over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from skerry.errors import InferenceRequestInvalid
from skerry.oip import answers, requests
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runtime.datatypes import Array
from skerry.serve.calls import Call
from skerry.serve.http import encoding
from skerry.serve.http.message import BINARY, HttpResponse

_MAX_DIGITS: Final = 15  # no body has 10^15 bytes
_MILLISECONDS: Final = 1e-3

BODY_LIMIT: Final = 64 * 1024 * 1024


class Wishes(Struct, frozen=True, kw_only=True):
    """What the headers of an infer request ask for. `timeout` in seconds, 0 = none."""

    header_length: int | None = None
    content_encoding: str = ""
    accept_encoding: str = ""
    timeout: float = 0.0


class HttpCall(Call, kw_only=True):
    """`limit` bounds the body once it is inflated."""

    body: bytes
    wishes: Wishes
    limit: int = BODY_LIMIT

    def decode(self, model: ModelSignature) -> InferRequest:
        wishes = self.wishes
        body = self.body
        if wishes.content_encoding:
            body = encoding.inflate(body, wishes.content_encoding, limit=self.limit)
        return requests.decode(body, wishes.header_length, model)

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> HttpResponse:
        answer = answers.encode(request, outputs, model)
        body, chosen = answer.body, ""
        if self.wishes.accept_encoding:
            chosen = encoding.choose(self.wishes.accept_encoding, len(body))
            body = encoding.deflate(body, chosen) if chosen else body
        if answer.header_length is None and not chosen:
            return HttpResponse(body=body, not_finite=answer.not_finite)
        return _with_headers(body, answer.header_length, chosen, answer.not_finite)


def _with_headers(body: bytes, header_length: int | None, chosen: str, not_finite: int) -> HttpResponse:
    headers: tuple[tuple[str, str], ...] = ()
    if header_length is not None:
        headers = (("Inference-Header-Content-Length", str(header_length)),)
    if chosen:
        headers += (("Content-Encoding", chosen),)
    content_type = BINARY if header_length is not None else "application/json"
    return HttpResponse(body=body, content_type=content_type, headers=headers, not_finite=not_finite)


def call(body: bytes, wishes: Wishes, *, received: float, limit: int = BODY_LIMIT) -> HttpCall:
    text = len(body) if wishes.header_length is None else wishes.header_length
    return HttpCall(
        body=body,
        wishes=wishes,
        received=received,
        size=text,
        heavy=bool(wishes.content_encoding),
        deadline=received + wishes.timeout if wishes.timeout else 0.0,
        limit=limit,
    )


def wishes_of(headers: Mapping[str, str]) -> Wishes:
    """`headers` by lower-case names. Raises InferenceRequestInvalid."""
    length = headers.get("inference-header-content-length")
    timeout = headers.get("inference-timeout-ms")
    return Wishes(
        header_length=None if length is None else _number(length, "Inference-Header-Content-Length"),
        content_encoding=headers.get("content-encoding", ""),
        accept_encoding=headers.get("accept-encoding", ""),
        timeout=0.0 if timeout is None else _number(timeout, "Inference-Timeout-Ms") * _MILLISECONDS,
    )


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InferenceRequestInvalid(problem=f"{name} is not a number (whole, not negative)")
    return int(text)
