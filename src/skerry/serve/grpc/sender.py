# SPDX-License-Identifier: Apache-2.0
"""The sending side of a connection: whatever the peer's windows and frame size, and the transport, let through."""

from __future__ import annotations

import asyncio
from typing import Final

from skerry.serve.grpc import frames
from skerry.serve.grpc.exchange import Failure, Payload
from skerry.serve.grpc.frames import ConnectionFault, ErrorCode
from skerry.serve.grpc.headers import CLOSING, OPENING, NotGrpc, http_refusal, refusal
from skerry.serve.grpc.stream import PREFIX, Stream

# An answer that fits is one write: HEADERS, DATA, and HEADERS with the trailers. What does not depend on it is made here.
_OPENING: Final = frames.frame(frames.HEADERS, frames.END_HEADERS, 0, OPENING)
_OPENING_HEAD: Final = _OPENING[:5]
_CLOSING: Final = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, CLOSING)
_DATA_TO_TRAILERS: Final = _CLOSING[:5]


class Sender:
    """`window` is the connection's, `initial` that of a new stream, `frame` the peer's largest frame."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.window = frames.DEFAULT_WINDOW
        self.initial = frames.DEFAULT_WINDOW
        self.frame = frames.DEFAULT_FRAME
        self.blocked = False  # by the transport
        self.sending: dict[int, Stream] = {}  # what does not fit the windows at present
        self.unsent = 0  # bytes of all these

    def whole(self, stream: Stream, payload: Payload) -> bool:
        """Send an answer at once when everything lets it through."""
        size = sum(map(len, payload))
        total = size + PREFIX
        if total > self.frame or total > self.window or total > stream.window or self.blocked or self.sending:
            return False
        self.window -= total
        number = stream.id.to_bytes(4, "big")
        self._transport.write(
            b"".join(
                (
                    _OPENING_HEAD,
                    number,
                    OPENING,
                    total.to_bytes(3, "big"),
                    b"\0\0",
                    number,
                    b"\0",
                    size.to_bytes(4, "big"),
                    *payload,
                    _DATA_TO_TRAILERS,
                    number,
                    CLOSING,
                )
            )
        )
        return True

    def begin(self, stream: Stream, payload: Payload) -> None:
        """Queue an answer; `pump` sends it."""
        self._transport.write(_OPENING_HEAD + stream.id.to_bytes(4, "big") + OPENING)
        stream.queue(payload)
        self.sending[stream.id] = stream
        self.unsent += stream.unsent

    def pump(self) -> list[Stream]:
        """Send what may be sent, a frame of each stream in turn; those that are done."""
        done: list[Stream] = []
        while self.sending and self.window > 0 and not self.blocked:
            stream = next((each for each in self.sending.values() if each.window > 0), None)
            if stream is None:
                break
            self._some(stream)
            del self.sending[stream.id]
            if stream.unsent:
                self.sending[stream.id] = stream  # behind the others
            else:
                done.append(stream)
        return done

    def _some(self, stream: Stream) -> None:
        size = min(stream.unsent, self.window, stream.window, self.frame)
        self.window -= size
        stream.window -= size
        self.unsent -= size
        number = stream.id.to_bytes(4, "big")
        parts: list[bytes | memoryview] = [size.to_bytes(3, "big") + b"\0\0" + number, *stream.cut(size)]
        if not stream.unsent:
            parts.append(_DATA_TO_TRAILERS + number + CLOSING)
        self._transport.writelines(parts)

    def forget(self, stream: Stream) -> None:
        if self.sending.pop(stream.id, None) is not None:
            self.unsent -= stream.unsent

    def fail(self, number: int, failure: Failure) -> None:
        """Trailers only."""
        block = refusal(failure.status, failure.text, failure.pushback)
        self._transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, block))

    def turn_away(self, number: int, answer: NotGrpc) -> None:
        """An HTTP status and a text; without the text when the windows have no room for it."""
        text = answer.problem.encode()
        if len(text) > min(self.window, self.initial):
            text = b""
        self.window -= len(text)
        block = http_refusal(answer.status, len(text))
        head = frames.frame(frames.HEADERS, frames.END_HEADERS, number, block)
        self._transport.write(head + frames.frame(frames.DATA, frames.END_STREAM, number, text))

    # --- what the peer says about its windows

    def widen(self, increment: int) -> None:
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self.window += increment
        if self.window > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")

    def resize(self, initial: int, streams: list[Stream]) -> None:
        """A new INITIAL_WINDOW_SIZE holds for open streams, too; a window may become negative."""
        difference = initial - self.initial
        self.initial = initial
        for stream in streams:
            stream.window += difference
            if stream.window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
