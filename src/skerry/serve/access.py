# SPDX-License-Identifier: Apache-2.0
"""The access log: who asked for what, how it ended and how long it took. Never a payload, a query or a header's value.

One line a request, `key=value`, for any transport. A valid `traceparent` (W3C Trace Context, section 3.2) gives the ids by which
a line is found from a trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from skerry.serve.http.message import HttpRequest, HttpResponse, QuickResponse, Reply, Sent, Switching

_TRACE: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_LONGEST: Final = 200

Handler = Callable[[HttpRequest, Reply], None]


class Entry(Struct, frozen=True, kw_only=True):
    """`status` in the transport's own numbers; sizes in bytes, -1 = not known; `path` as it was sent."""

    protocol: str
    method: str
    path: str
    status: int
    received: int
    sent: int
    seconds: float
    traceparent: str = ""

    def __str__(self) -> str:
        path = self.path.split("?", 1)[0][:_LONGEST]
        fields = [
            f"protocol={self.protocol}",
            f"method={_plain(self.method)}",
            f"path={_plain(path)}",
            f"status={self.status}",
            f"in={self.received}",
            f"out={self.sent if self.sent >= 0 else '-'}",
            f"ms={self.seconds * 1000:.3f}",
        ]
        trace = _TRACE.fullmatch(self.traceparent)
        if trace is not None:
            fields += [f"trace={trace[1]}", f"parent={trace[2]}"]
        return " ".join(fields)


def _plain(text: str) -> str:
    """Nothing a reader of lines could take for another field or line."""
    return "".join(char if "!" <= char <= "~" and char not in '"=\\' else f"%{ord(char):02X}" for char in text)


class Log(Struct, frozen=True, kw_only=True):
    """Where lines go: `write` takes a finished one. `now` in monotonic seconds."""

    now: Callable[[], float]
    write: Callable[[str], None]


class AccessLog:
    """A handler of requests around another one. `write` takes a finished line."""

    def __init__(self, handler: Handler, *, now: Callable[[], float], write: Callable[[str], None]) -> None:
        self._handler = handler
        self._now = now
        self._write = write

    def __call__(self, request: HttpRequest, reply: Reply) -> None:
        self._handler(request, partial(self._answered, request, reply))

    def _answered(
        self, request: HttpRequest, reply: Reply, response: HttpResponse | QuickResponse | Switching | Sent
    ) -> None:
        reply(response)
        status, sent = _outcome(response)
        head = request.head
        entry = Entry(
            protocol="http",
            method=head.method,
            path=head.target,
            status=status,
            received=head.length,
            sent=sent,
            seconds=self._now() - request.received,
            traceparent=head.headers.get("traceparent", ""),
        )
        self._write(str(entry))


def _outcome(response: HttpResponse | QuickResponse | Switching | Sent) -> tuple[int, int]:
    """(status, bytes of the body)."""
    match response:
        case HttpResponse():
            return response.status.value, len(response.body)
        case QuickResponse():
            return 200, len(response.json) + sum(map(len, response.tensors))
        case Sent():
            return 200, -1
        case Switching():
            return 101, 0
