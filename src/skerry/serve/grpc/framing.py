# SPDX-License-Identifier: Apache-2.0
"""Bytes as they arrive -> whole frames and header blocks, in order. Pure; every fault of framing is a ConnectionFault.

Of DATA whatever is there is handed on at once, as if it had come in smaller frames: a large message is not copied twice.
"""

from __future__ import annotations

from typing import Final, Protocol

from skerry.serve.grpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_SIZE,
    HEADERS,
    PADDED,
    PREFACE,
    SETTINGS,
    STREAM_MASK,
    WITH_PRIORITY,
    ConnectionFault,
    ErrorCode,
    unpadded,
)

_ANY: Final = -1
_PRIORITY_SIZE: Final = 5
_unpack: Final = HEADER.unpack_from


class Handler(Protocol):
    """Where frames go. All may raise ConnectionFault."""

    finished: bool
    """Nothing more is looked at."""

    def data(self, number: int, flags: int, payload: bytes, size: int) -> None:
        """`size` counts the padding, which `payload` is without."""

    def headers(self, number: int, flags: int, block: bytes, depends_on: int) -> None:
        """A whole block; `depends_on` is the stream a priority names, -1 without one."""

    def control(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        """Every other frame."""


class _Block:
    """A header block that is not complete."""

    __slots__ = ("data", "depends_on", "flags", "frames", "number")

    def __init__(self, number: int, flags: int, data: bytes, depends_on: int) -> None:
        self.number = number
        self.flags = flags
        self.data = data
        self.depends_on = depends_on
        self.frames = 0


class FrameReader:
    """`frame` is the largest payload we announced, `head` that of a header block and of any frame but DATA."""

    def __init__(self, handler: Handler, *, frame: int, head: int, continuations: int) -> None:
        self._handler = handler
        self._frame = frame
        self._head = head
        self._continuations = continuations
        self._preface = PREFACE
        self._only = SETTINGS  # the one kind of frame that may come next
        self._rest = bytearray()  # of a frame that is not complete
        self._number = self._flags = self._left = 0  # of a DATA frame whose beginning has been handed on
        self._block: _Block | None = None

    def feed(self, data: bytes) -> None:
        at = 0
        if self._preface or self._rest or self._left:
            at = self._resume(data)
        self._frames(data, at)

    @property
    def empty(self) -> bool:
        """Between two frames, and any may come."""
        return not self._rest and not self._left and self._only == _ANY and not self._preface

    # --- inside

    def _resume(self, data: bytes) -> int:
        at = 0
        if self._preface:
            at = min(len(self._preface), len(data))
            if data[:at] != self._preface[:at]:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not how HTTP/2 begins")
            self._preface = self._preface[at:]
        if self._rest:
            at = self._fill(data, HEADER_SIZE, at)
            if len(self._rest) < HEADER_SIZE:
                return at
            high, low, kind, flags, number = _unpack(self._rest)
            size = high << 8 | low
            self._check(kind, flags, size)
            if self._in_pieces(kind, flags):
                self._rest.clear()
                self._piecewise(number & STREAM_MASK, flags, size)
            else:
                at = self._fill(data, HEADER_SIZE + size, at)
                if len(self._rest) == HEADER_SIZE + size:
                    whole = bytes(self._rest)
                    self._rest.clear()
                    self._frames(whole, 0)
        if self._left:
            take = min(self._left, len(data) - at)
            self._piece(data[at : at + take])
            at += take
        return at

    def _fill(self, data: bytes, size: int, at: int) -> int:
        take = max(0, min(size - len(self._rest), len(data) - at))
        self._rest += data[at : at + take]
        return at + take

    def _frames(self, data: bytes, at: int) -> None:
        handler = self._handler
        end = len(data)
        while end - at >= HEADER_SIZE and not handler.finished:
            high, low, kind, flags, number = _unpack(data, at)
            size = high << 8 | low
            begin = at + HEADER_SIZE
            stop = begin + size
            if self._only != _ANY or size > self._head:
                self._check(kind, flags, size)
            if stop > end:
                if not self._in_pieces(kind, flags):
                    break
                self._piecewise(number & STREAM_MASK, flags, size)
                if begin < end:
                    self._piece(data[begin:end])
                return
            if kind == DATA:
                payload = data[begin:stop]
                handler.data(number & STREAM_MASK, flags, unpadded(payload, flags) if flags & PADDED else payload, size)
            else:
                self._other(kind, flags, number & STREAM_MASK, data[begin:stop])
            at = stop
        if at < end and not handler.finished:
            self._rest += data[at:end]

    def _check(self, kind: int, flags: int, size: int) -> None:
        if self._only not in {_ANY, kind} or (self._only == SETTINGS and flags & 1):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this frame may not come here")
        if size > self._frame:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "the frame is larger than we take")
        if size > self._head and kind != DATA:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the frame is too large for what it is")

    # --- DATA in pieces

    @staticmethod
    def _in_pieces(kind: int, flags: int) -> bool:
        return kind == DATA and not flags & PADDED

    def _piecewise(self, number: int, flags: int, size: int) -> None:
        self._number, self._flags, self._left = number, flags, size
        if not size:
            self._handler.data(number, flags, b"", 0)

    def _piece(self, data: bytes) -> None:
        if not data:
            return
        self._left -= len(data)
        flags = self._flags if not self._left else self._flags & ~END_STREAM
        self._handler.data(self._number, flags, data, len(data))

    # --- header blocks and the rest

    def _other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._begin_block(flags, number, payload)
        elif kind == CONTINUATION:
            self._continue_block(flags, number, payload)
        else:
            if self._only == SETTINGS:
                self._only = _ANY
            self._handler.control(kind, number, flags, payload)

    def _begin_block(self, flags: int, number: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = unpadded(payload, flags)
        depends_on = -1
        if flags & WITH_PRIORITY:
            if len(payload) < _PRIORITY_SIZE:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS are too short for their priority")
            depends_on = int.from_bytes(payload[:4], "big") & STREAM_MASK
            payload = payload[_PRIORITY_SIZE:]
        if flags & END_HEADERS:
            self._handler.headers(number, flags, payload, depends_on)
            return
        self._block = _Block(number, flags, payload, depends_on)
        self._only = CONTINUATION

    def _continue_block(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or number != block.number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.data += payload
        block.frames += 1
        if block.frames > self._continuations or len(block.data) > self._head:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too large")
        if flags & END_HEADERS:
            self._block = None
            self._only = _ANY
            self._handler.headers(block.number, block.flags, block.data, block.depends_on)
