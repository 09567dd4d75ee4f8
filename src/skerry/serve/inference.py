# SPDX-License-Identifier: Apache-2.0
"""One infer request from body to body: inflate, decode, run, encode. Runs on any thread and touches no counter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from skerry.errors import DeadlineExceeded, InferenceRequestInvalid, SkerryError
from skerry.observe.counters import ModelCounters
from skerry.oip import answers, requests
from skerry.oip.messages import InferAnswer, ModelSignature
from skerry.runtime.datatypes import Array
from skerry.runtime.engine import Engine
from skerry.serve.http import encoding

Monotonic = Callable[[], float]


@dataclass(kw_only=True)
class Served:
    """A loaded variant under its name. `cost` in seconds per run as measured at load."""

    signature: ModelSignature
    engine: Engine
    cost: float
    counters: ModelCounters = field(default_factory=ModelCounters)
    ready: bool = True


class Call(Struct, frozen=True, kw_only=True):
    """An infer request as it came in; `received` in monotonic seconds."""

    body: bytes
    received: float
    header_length: int | None = None
    content_encoding: str = ""
    accept_encoding: str = ""
    limit: int = 64 * 1024 * 1024


class Answered(Struct, frozen=True, kw_only=True):
    """`queue` and `compute` in seconds; `content_encoding` is empty for a plain body."""

    answer: InferAnswer
    outputs: Mapping[str, Array]
    request_id: str
    rows: int
    queue: float
    compute: float
    content_encoding: str = ""


class Refused(Struct, frozen=True, kw_only=True):
    error: SkerryError


def infer(served: Served, call: Call, now: Monotonic) -> Answered | Refused:
    try:
        return _infer(served, call, now)
    except SkerryError as error:
        return Refused(error=error)


def _infer(served: Served, call: Call, now: Monotonic) -> Answered:
    begun = now()
    body = encoding.inflate(call.body, call.content_encoding, limit=call.limit)
    request = requests.decode(body, call.header_length, served.signature)
    if request.timeout and begun - call.received > request.timeout:
        raise DeadlineExceeded
    before = now()
    outputs = served.engine.run(request.inputs)
    after = now()
    answer = answers.encode(request, outputs, served.signature)
    chosen = encoding.choose(call.accept_encoding, len(answer.body))
    if chosen:
        compressed = encoding.deflate(answer.body, chosen)
        answer = InferAnswer(body=compressed, header_length=answer.header_length, not_finite=answer.not_finite)
    return Answered(
        answer=answer,
        outputs=outputs,
        request_id=request.id or "",
        rows=_rows(request.inputs),
        queue=begun - call.received,
        compute=after - before,
        content_encoding=chosen,
    )


def _rows(inputs: Mapping[str, Array]) -> int:
    """Length of the first axis of the first input: what a batch counts; 1 for scalars and models without inputs, 0 for nothing."""
    first = next(iter(inputs.values()), None)
    if first is None or not first.ndim:
        return 1
    return first.shape[0] if first.size else 0


def header_length(text: str | None) -> int | None:
    """The Inference-Header-Content-Length header. Raises InferenceRequestInvalid unless it is a plain number."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):  # noqa: PLR2004 - no body has 10^15 bytes
        raise InferenceRequestInvalid(problem="Inference-Header-Content-Length is not a number of bytes")
    return int(text)
