# SPDX-License-Identifier: Apache-2.0
"""An infer request that came over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, cast

from msgspec import Struct

from skerry.errors import InferenceRequestInvalid
from skerry.oip import answers, requests
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runtime.datatypes import Array
from skerry.serve.calls import Answered, Call, Outcome
from skerry.serve.http import encoding
from skerry.serve.http.message import (
    BINARY,
    JSON,
    HttpResponse,
    QuickResponse,
    Reply,
    Sent,
    Waits,
    Way,
    head_of,
    in_binary,
    refusal,
)

_MAX_DIGITS: Final = 15  # no body has 10^15 bytes
_MILLISECONDS: Final = 1e-3
_REMEMBERED: Final = 1024
_MAX_REMEMBERED: Final = 2048  # bytes of one: an id of the client's is in it

BODY_LIMIT: Final = 64 * 1024 * 1024


class Wishes(Struct, frozen=True, kw_only=True):
    """What the headers of an infer request ask for. `timeout` in seconds, 0 = none."""

    header_length: int | None = None
    content_encoding: str = ""
    accept_encoding: str = ""
    timeout: float = 0.0


class HttpCall(Call, kw_only=True, gc=False):
    """`limit` bounds the body once it is inflated."""

    body: bytes
    wishes: Wishes
    reply: Reply
    limit: int = BODY_LIMIT
    ways: Callable[[Waits], Way | None] | None = None
    way: Way | None = None  # of a worker
    sent: Sent | None = None

    @property
    def weight(self) -> int:
        return len(self.body)

    def decode(self, model: ModelSignature) -> InferRequest:
        wishes = self.wishes
        body = self.body
        if wishes.content_encoding:
            body = encoding.inflate(body, wishes.content_encoding, limit=self.limit)
        return requests.decode(body, wishes.header_length, model)

    def encode(
        self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature
    ) -> HttpResponse | QuickResponse:
        if request.wanted.binary and not self.wishes.accept_encoding:
            json, tensors = answers.in_parts(request, outputs, model)
            return QuickResponse(start=_start(json, tensors), json=json, tensors=tensors)
        answer = answers.encode(request, outputs, model)
        self.not_finite = answer.not_finite
        body = answer.body
        chosen = encoding.choose(self.wishes.accept_encoding, len(body))
        headers = in_binary(body[: answer.header_length]) if answer.header_length is not None else ()
        if chosen:
            body = encoding.deflate(body, chosen)
            headers += (("Content-Encoding", chosen),)
        return HttpResponse(body=body, content_type=JSON if answer.header_length is None else BINARY, headers=headers)

    def aside(self) -> None:
        if self.ways is not None:
            self.way = self.ways(self)

    def hand_over(self, answer: object) -> None:
        if self.way is not None and isinstance(answer, HttpResponse | QuickResponse):
            self.sent = self.way.send(answer)

    def finish(self, outcome: Outcome) -> None:
        if self.sent is not None:
            self.reply(self.sent)
        elif isinstance(outcome, Answered):
            self.reply(cast("HttpResponse | QuickResponse", outcome.answer))
        else:
            self.reply(refusal(outcome.error))
        if self.done is not None:
            self.done(outcome)


_starts: Final[dict[bytes, bytes]] = {}


def _start(json: bytes, tensors: list[bytes]) -> bytes:
    """HTTP's head and the JSON, which states how long the tensors are: what is equal here is equal there."""
    start = _starts.get(json)
    if start is None:
        response = HttpResponse(content_type=BINARY, headers=in_binary(json))
        length = len(json) + sum(map(len, tensors))
        start = head_of(response, connection="", length=length) + json
        if len(json) <= _MAX_REMEMBERED:
            if len(_starts) >= _REMEMBERED:
                _starts.clear()
            _starts[json] = start
    return start


def call(
    body: bytes, wishes: Wishes, *, received: float, reply: Reply = lambda _: None, limit: int = BODY_LIMIT
) -> HttpCall:
    return HttpCall(
        body=body,
        wishes=wishes,
        reply=reply,
        received=received,
        size=len(body) if wishes.header_length is None else wishes.header_length,
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
