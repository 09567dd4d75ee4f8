# SPDX-License-Identifier: Apache-2.0
"""One call on its HTTP/2 stream: the message as it arrives, and what is left to send of the answer. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

from skerry.errors import InferenceRequestInvalid, RequestTooLarge
from skerry.serve.calls import Call
from skerry.serve.grpc.exchange import Method, Payload
from skerry.serve.grpc.headers import Ask

PREFIX: Final = 5  # flag of compression and length in front of every message of gRPC
_FLAGS: Final = frozenset({0, 1})


class State(Enum):
    RECEIVING = auto()
    ASKED = auto()  # the service has it
    SENDING = auto()
    GONE = auto()  # its client does not want the answer any more


class Stream:
    """`window` is what the client takes at present; times in monotonic seconds."""

    __slots__ = (
        "_left",
        "_parts",
        "ask",
        "body",
        "call",
        "half",
        "id",
        "method",
        "received",
        "since",
        "state",
        "unsent",
        "window",
    )

    def __init__(self, number: int, ask: Ask, window: int, since: float) -> None:
        self.id = number
        self.ask = ask
        self.window = window
        self.since = since
        self.method: Method  # known once the path is
        self.call: Call | None = None  # that the service has
        self.state = State.RECEIVING
        self.body: bytes | bytearray = b""
        self.received = 0  # bytes of DATA, padding included
        self.half = False  # the client has sent its last frame
        self.unsent = 0
        self._parts: deque[memoryview]  # of the answer, once there is one

    @property
    def deadline(self) -> float:
        timeout = self.ask.timeout
        return 0.0 if timeout is None else self.since + timeout

    # --- the message

    def take(self, data: bytes | memoryview, limit: int) -> None:
        """Raises RequestTooLarge as soon as the length says so, InferenceRequestInvalid when there is more than one message."""
        if not self.body:
            self.body = bytearray()
        self.body += data
        if len(self.body) < PREFIX:
            return
        size = int.from_bytes(self.body[1:PREFIX], "big")
        if size > limit:
            raise RequestTooLarge(limit=limit)
        if len(self.body) > PREFIX + size:
            raise InferenceRequestInvalid(problem="there is more than one message, where the method takes one")

    def message(self) -> tuple[bool, bytes | bytearray]:
        """Whether it is compressed, and the message. Raises InferenceRequestInvalid."""
        body = self.body
        if len(body) < PREFIX or len(body) != PREFIX + int.from_bytes(body[1:PREFIX], "big"):
            raise InferenceRequestInvalid(problem="the message is cut short")
        if body[0] not in _FLAGS:
            raise InferenceRequestInvalid(problem="the flags in front of the message are not those of gRPC")
        self.body = b""
        return body[0] == 1, body[PREFIX:]

    # --- the answer

    def queue(self, payload: Payload) -> None:
        size = sum(map(len, payload))
        self._parts = deque((memoryview(b"\0" + size.to_bytes(4, "big")),))
        self._parts.extend(memoryview(part) for part in payload if len(part))
        self.unsent = size + PREFIX

    def cut(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, at most `unsent`."""
        self.unsent -= size
        while size:
            part = self._parts.popleft()
            if len(part) > size:
                self._parts.appendleft(part[size:])
                part = part[:size]
            size -= len(part)
            yield part
