# SPDX-License-Identifier: Apache-2.0
"""What the connection hands to the service and gets back. Knows neither frames nor models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from skerry.errors import SkerryError
from skerry.serve.calls import Call
from skerry.serve.grpc.status import GrpcStatus, status_of
from skerry.serve.status import retry_after

_MILLISECONDS = 1000

Payload = Sequence[bytes | memoryview]
"""A message in parts."""


class Incoming(Struct, frozen=True, kw_only=True):
    """One whole message. Times in monotonic seconds, `deadline` 0 = none; `encoding` is empty for a plain message."""

    message: bytes | bytearray
    received: float
    deadline: float = 0.0
    encoding: str = ""


class Failure(Struct, frozen=True, kw_only=True):
    """`pushback` in milliseconds: when to try again."""

    status: GrpcStatus
    text: str
    pushback: int | None = None


Reply = Callable[[Payload | Failure], None]
"""Called once per call, on the loop's thread, now or later."""

Method = Callable[[Incoming, Reply], Call | None]
"""Answers through its reply; never raises for what a client sent. What it gives back is told when its client has gone."""


class Service(Protocol):
    def find(self, path: str) -> Method | Failure:
        """The method at `/package.Service/Method`, or why there is none."""


def failure(error: SkerryError) -> Failure:
    status = status_of(error)
    pushback = retry_after(error) * _MILLISECONDS if status is GrpcStatus.UNAVAILABLE else None
    return Failure(status=status, text=str(error), pushback=pushback)
