# SPDX-License-Identifier: Apache-2.0
"""One infer request as the scheduler sees it, whatever transport brought it, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from skerry.errors import SkerryError
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runtime.datatypes import Array


class Call(Struct, kw_only=True):
    """Transports derive their own, with what they need to read the request and to write its answer.

    Both methods may be called on any thread, once, and raise SkerryError.
    """

    received: float  # monotonic seconds: when its last byte came
    size: int = 0  # bytes of text to read; much of it is read on a worker
    heavy: bool = False  # takes long to read whatever its size: it is compressed, say
    deadline: float = 0.0  # monotonic seconds, 0 = none; the request's own timeout can only shorten it

    def decode(self, model: ModelSignature) -> InferRequest:
        raise NotImplementedError

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> object:
        """The transport's answer. An attribute `not_finite`, where it has one, counts values JSON cannot carry."""
        raise NotImplementedError


class Answered(Struct, frozen=True, kw_only=True):
    """`answer` is what `encode` made. Times in seconds; `batch` requests shared the run."""

    answer: object
    outputs: Mapping[str, Array]
    request_id: str
    rows: int
    queue: float
    compute: float
    codec: float = 0.0
    batch: int = 1


class Refused(Struct, frozen=True, kw_only=True):
    error: SkerryError


class Crashed(Struct, frozen=True, kw_only=True):
    """A defect of ours, already logged."""

    problem: str


Outcome = Answered | Refused | Crashed
Done = Callable[[Outcome], None]
"""Called exactly once, on the loop's thread."""
