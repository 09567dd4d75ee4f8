# SPDX-License-Identifier: Apache-2.0
"""Declared outputs of answered requests on their way to the agent: numbered, bounded, kept until acknowledged. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec.json import encode

from skerry.bundle.manifest import Egress
from skerry.runtime.datatypes import Array, widen
from skerry.wire.v1.runner import Result

Value = float | int | str | bool

_LIMIT: Final = 10_000
_MAX_BYTES: Final = 1024 * 1024 - 1
"""A line of the wire may have 1 MiB. The agent hangs up on a longer one, so a client's long texts must not make one."""

_MAX_REQUEST_ID: Final = 256


def _value(value: object) -> Value:
    """JSON has no NaN and no infinities: they are written as the words protobuf's JSON mapping uses."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bool | int | float):
        return value
    return str(value)


def declared(outputs: Mapping[str, Array], egress: Egress) -> dict[str, list[Value]]:
    """The outputs that may leave, flat; one with more than `max_values` values stays here."""
    return {
        name: [_value(value) for value in widen(outputs[name]).ravel().tolist()]
        for name in egress.results
        if name in outputs and outputs[name].size <= egress.max_values
    }


class ResultQueue:
    """`prefix` makes event ids unique over all runner processes.

    Beyond `limit` unacknowledged results new ones are dropped, as is one too large for a message to the agent.
    """

    def __init__(self, prefix: str, *, limit: int = _LIMIT) -> None:
        self._prefix = prefix
        self._limit = limit
        self._last = 0
        self._unacknowledged: deque[int] = deque()
        self.dropped = 0

    @property
    def unacknowledged(self) -> int:
        return len(self._unacknowledged)

    def make(self, outputs: dict[str, list[Value]], *, at: float, request_id: str) -> Result | None:
        """The next result to send; None when there is no room for it. A request id of over 256 characters is left out."""
        n = self._last + 1
        result = Result(
            n=n,
            event_id=f"{self._prefix}-{n}",
            at=at,
            outputs=outputs,
            request_id=request_id if len(request_id) <= _MAX_REQUEST_ID else "",
        )
        if len(self._unacknowledged) >= self._limit or len(encode(result)) > _MAX_BYTES:
            self.dropped += 1
            return None
        self._last = n
        self._unacknowledged.append(n)
        return result

    def acknowledge(self, through: int) -> None:
        while self._unacknowledged and self._unacknowledged[0] <= through:
            self._unacknowledged.popleft()
