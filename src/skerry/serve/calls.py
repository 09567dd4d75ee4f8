# SPDX-License-Identifier: Apache-2.0
"""One infer request as the scheduler sees it, whatever transport brought it, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from skerry.errors import InferenceFailed, SkerryError
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runtime.datatypes import Array

_logger = logging.getLogger(__name__)
_What = TypeVar("_What")


class Call(Struct, kw_only=True, gc=False):
    """Transports derive their own, with what they need to read the request and to write its answer.

    `decode` and `encode` may be called on any thread, and raise SkerryError; for a trial, more than once. `finish` is called exactly once, on the
    loop's thread; what a transport does not do there itself goes to `done`.
    """

    received: float  # monotonic seconds: when its last byte came
    size: int = 0  # bytes of text to read; much of it is read on a worker
    heavy: bool = False  # takes long to read whatever its size: it is compressed, say
    deadline: float = 0.0  # monotonic seconds, 0 = none; the request's own timeout can only shorten it
    counted: bool = True  # False for what no client asked
    pinned: bool = False  # only the version it was brought to may answer it: it names that one, say
    gone: bool = False  # nobody waits for the answer any more: set by the transport, on the loop's thread, read on any
    not_finite: int = 0  # values JSON cannot carry and `encode` wrote as null
    done: Done | None = None

    @property
    def weight(self) -> int:
        """Bytes that live as long as the call does."""
        return self.size

    def decode(self, model: ModelSignature) -> InferRequest:
        raise NotImplementedError

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> object:
        """The transport's answer."""
        raise NotImplementedError

    def aside(self) -> None:
        """On the loop's thread, when a worker is going to answer."""

    def hand_over(self, answer: object) -> None:
        """On that worker's thread, with what `encode` made: the client may be given it at once. `finish` still follows."""

    def finish(self, outcome: Outcome) -> None:
        if self.done is not None:
            self.done(outcome)


class Answered(Struct, frozen=True, kw_only=True, gc=False):
    """`answer` is what `encode` made. Times in seconds; `batch` requests shared the run."""

    answer: object
    outputs: Mapping[str, Array]
    request_id: str
    rows: int
    queue: float
    compute: float
    codec: float = 0.0
    batch: int = 1


class Refused(Struct, frozen=True, kw_only=True, gc=False):
    error: SkerryError


class Crashed(Struct, frozen=True, kw_only=True):
    """A defect of ours, already logged; the client hears no more than that of it."""

    problem: str
    name: str = "?"

    @property
    def error(self) -> SkerryError:
        return InferenceFailed(name=self.name, problem="an internal error, see the log")


def attempt(step: Callable[[_What], None], what: _What) -> None:
    """A step of a call with its answer. A transport's defect there must not end the thread, nor cost the rest of a batch theirs."""
    try:
        step(what)
    except Exception:
        _logger.exception("an answer was not given")


Outcome = Answered | Refused | Crashed
Done = Callable[[Outcome], None]
"""Called exactly once, on the loop's thread."""
