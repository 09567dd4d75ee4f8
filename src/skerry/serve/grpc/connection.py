# SPDX-License-Identifier: Apache-2.0
"""One HTTP/2 connection (RFC 9113) of unary gRPC calls: frames in, frames out, its limits and its end.

The usual call, HEADERS and one DATA with END_STREAM, is recognised and answered with one write; everything else takes the
long way. A cancelled call counts as one of the streams until the service is done with it: resetting streams fast
(CVE-2023-44487) gains nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final, Protocol, cast

from skerry.serve.grpc import frames
from skerry.serve.grpc.exchange import Failure, Service
from skerry.serve.grpc.frames import HEADER_SIZE, ConnectionFault, ErrorCode
from skerry.serve.grpc.framing import FrameReader
from skerry.serve.grpc.headers import Ask, Asked, HeaderReader, Malformed, NotGrpc, Refusal, Trailers
from skerry.serve.grpc.limits import GrpcLimits
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.grpc.stream import PREFIX, State, Stream
from skerry.serve.grpc.streams import Server, Streams
from skerry.serve.http.connection import end_writing

_LINGER_SECONDS: Final = 2.0
_NEVER: Final = float("inf")
_DRAIN_PING: Final = b"last one"
_WINDOW: Final = 1 << 30  # of the connection; what may be held in memory is bounded by the server, not by this
_CALL_SIZE: Final = frames.CALL.size
_SHORTEST: Final = HEADER_SIZE + _CALL_SIZE
_LONGEST: Final = 64 * 1024
_head: Final = frames.HEADER.unpack_from
_call: Final = frames.CALL.unpack_from
_logger = logging.getLogger(__name__)


class Host(Server, Protocol):
    """What a connection needs of the server it belongs to."""

    def opened(self, connection: GrpcConnection) -> bool:
        """False when there are too many already."""

    def closed(self, connection: GrpcConnection) -> None: ...


class GrpcConnection(asyncio.Protocol):
    def __init__(self, host: Host, service: Service, limits: GrpcLimits | None = None) -> None:
        self._host = host
        self._service = service
        self._limits = limits or GrpcLimits()
        self._taken = host.limits
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(
            self,
            frame=self._limits.frame_bytes,
            head=self._taken.head_bytes,
            continuations=self._limits.continuations,
        )
        self._headers = HeaderReader(self._limits.header_list_bytes)
        self._now = host.now()
        self._window = _WINDOW  # what the peer may send us on this connection
        self._draining = self._closing = self._lingering = False
        self._until = _NEVER  # of lingering
        self._buffered = 0  # bytes the transport held when it was last looked at
        self.finished = False

    # --- for the server

    @property
    def idle(self) -> bool:
        """Nothing received, nothing to answer."""
        return self._streams.empty and self._reader.empty

    @property
    def deadline(self) -> float:
        """When `expire` is due, in monotonic seconds."""
        if self._transport is None:
            return _NEVER
        if self._lingering:
            return self._until
        streams = self._streams
        if streams.sender.blocked or streams.sender.sending:
            return streams.moved + self._taken.write_seconds
        if (oldest := streams.oldest) is not None:
            return oldest.since + self._taken.request_seconds
        if not streams.empty:
            return _NEVER
        return self._now + (self._taken.idle_seconds if self._reader.empty else self._taken.request_seconds)

    def drain(self) -> None:
        """Announce the end. What the client had sent before it knew is answered: the answer to the ping says it knows."""
        if self._draining or self.finished or self._transport is None:
            return
        self._draining = True
        announcement = frames.goaway(frames.MAX_WINDOW, ErrorCode.NO_ERROR, "draining")
        self._transport.write(announcement + frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def close(self) -> None:
        """Now. A client that has sent something since may repeat it elsewhere: GOAWAY says up to where it was seen."""
        if self._transport is None:
            return
        if not self.finished:
            self._transport.write(frames.goaway(self._streams.last, ErrorCode.NO_ERROR))
            self.finished = True
        self._transport.close()

    def expire(self) -> None:
        """`deadline` has passed."""
        transport = self._transport
        if transport is None:
            return
        streams = self._streams
        now = self._now = self._host.now()
        if self._lingering:
            transport.abort()
        elif streams.sender.blocked:
            buffered = transport.get_write_buffer_size()
            if buffered >= self._buffered:
                transport.abort()
            self._buffered, streams.moved = buffered, now
        elif streams.sender.sending:
            for stream in list(streams.sender.sending.values()):
                streams.reset(stream, ErrorCode.CANCEL)
        elif streams.oldest is not None:
            self._expire_slow(now - self._taken.request_seconds)
        elif streams.empty:
            self._end(ErrorCode.NO_ERROR, "idle, or too slow")

    def _expire_slow(self, before: float) -> None:
        late = Failure(status=GrpcStatus.DEADLINE_EXCEEDED, text="the request took too long to arrive")
        for stream in list(self._streams.open.values()):
            if stream.state is State.RECEIVING and stream.since <= before:
                self._streams.fail(stream, late)

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._streams = Streams(self._host, self._service, self._transport, self._limits, self._settled)
        _send_at_once(transport.get_extra_info("socket"))
        ours = {
            frames.MAX_CONCURRENT_STREAMS: self._limits.streams,
            frames.INITIAL_WINDOW_SIZE: self._streams.window,
            frames.MAX_FRAME_SIZE: self._limits.frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: self._limits.header_list_bytes,
        }
        wider = frames.window_update(0, _WINDOW - frames.DEFAULT_WINDOW)
        self._transport.write(frames.settings(ours) + wider)
        if not self._host.opened(self):
            self._end(ErrorCode.REFUSED_STREAM, "too many connections")

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self.finished = True
        self._streams.close()
        del (
            self._reader
        )  # it refers back to here: without this a connection would live until the garbage collector runs
        self._host.closed(self)

    def data_received(self, data: bytes) -> None:
        if self.finished:
            return
        self._now = self._host.now()
        try:
            if not self._usual(data):
                self._host.several = True
                self._reader.feed(data)
        except ConnectionFault as fault:
            self._end(fault.code, str(fault))
        finally:
            self._host.several = False

    def _usual(self, data: bytes) -> bool:
        """HEADERS seen before, and DATA with END_STREAM, and nothing else: what most clients send for most calls.

        False when it is anything else, which nothing has been done for then.
        """
        end = len(data)
        if end < _SHORTEST or end > _LONGEST or not self._reader.empty:
            return False
        high, low, kind, flags, number = _head(data)
        at = HEADER_SIZE + (high << 8 | low)
        if kind != frames.HEADERS or flags != frames.END_HEADERS or at + _CALL_SIZE > end:
            return False
        high, low, kind, flags, same, packed, length = _call(data, at)
        ask = self._headers.known.get(data[HEADER_SIZE:at])
        streams = self._streams
        if (
            (kind, flags, same, packed) != (frames.DATA, frames.END_STREAM, number, 0)
            or high << 8 | low != length + PREFIX
            or at + _CALL_SIZE + length != end
            or type(ask) is not Ask
            or ask.length is not None
            or number <= streams.last
            or not number & 1
            or number > frames.STREAM_MASK
            or self._closing
            or streams.full
        ):
            return False
        self._window -= length + PREFIX
        if self._window < _WINDOW >> 1:
            self._refill()
        streams.last = number
        streams.opened += 1
        streams.whole(number, ask, data[at + _CALL_SIZE :], self._now)
        return True

    def eof_received(self) -> bool:
        """Keep the write side open while answers are still due."""
        return not self.finished and bool(self._streams.open)

    def pause_writing(self) -> None:
        self._streams.sender.blocked = True
        self._streams.moved = self._host.now()
        if self._transport is not None:
            self._buffered = self._transport.get_write_buffer_size()
            self._transport.pause_reading()  # or the answers to pings would pile up

    def resume_writing(self) -> None:
        self._streams.sender.blocked = False
        if self._transport is not None:
            self._transport.resume_reading()
            self._streams.pump()

    # --- DATA and HEADERS

    def data(self, number: int, flags: int, payload: bytes, size: int) -> None:
        self._window -= size
        if self._window < _WINDOW >> 1:
            self._refill()
        stream = self._streams.open.get(number)
        if stream is None or stream.half:
            self._stray_data(number, stream)
            return
        if not payload and not flags & frames.END_STREAM:
            self._spend()
        self._streams.data(stream, flags, payload, size, self._now)

    def _refill(self) -> None:
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more was sent than the connection's window")
        self._write(frames.window_update(0, _WINDOW - self._window))
        self._window = _WINDOW

    def _stray_data(self, number: int, stream: Stream | None) -> None:
        if number > self._streams.last or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was not opened")
        if stream is not None:
            self._streams.reset(stream, ErrorCode.STREAM_CLOSED)
        elif not self._streams.was_reset(number):
            self._spend()
            self._write(frames.rst_stream(number, ErrorCode.STREAM_CLOSED))

    def headers(self, number: int, flags: int, block: bytes, depends_on: int) -> None:
        asked = self._headers.known.get(block)
        if asked is None:
            asked = self._headers.read(block)
        streams = self._streams
        if number <= streams.last or not number & 1:
            self._late_headers(number, flags, asked)
            return
        streams.last = number
        streams.opened += 1
        if depends_on == number:
            streams.refuse(number, ErrorCode.PROTOCOL_ERROR)
        elif self._closing or streams.full:
            self._spend()
            streams.refuse(number, ErrorCode.REFUSED_STREAM)
        elif type(asked) is Ask and not flags & frames.END_STREAM:
            streams.begin(number, asked, self._now)
        else:
            self._spend()
            self._answer_headers(number, flags, asked)

    def _answer_headers(self, number: int, flags: int, asked: Asked) -> None:
        """What needs no message to be answered."""
        streams = self._streams
        match asked:
            case Malformed() | Trailers():
                _logger.debug("malformed request: %s", asked)
                streams.refuse(number, ErrorCode.PROTOCOL_ERROR)
                return
            case NotGrpc():
                streams.sender.turn_away(number, asked)
            case Refusal(status=status, problem=problem):
                streams.sender.fail(number, Failure(status=status, text=problem))
            case Ask(path=path):
                streams.sender.fail(number, streams.refused(path))
        if not flags & frames.END_STREAM:
            streams.refuse(number, ErrorCode.NO_ERROR)

    def _late_headers(self, number: int, flags: int, asked: Asked) -> None:
        """Trailers, which gRPC's clients do not send, or a stream that is over."""
        streams = self._streams
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "streams of a client have odd numbers")
        stream = streams.open.get(number)
        if stream is None:
            if streams.was_reset(number):
                return
            every = streams.opened == (streams.last + 1) >> 1
            code = ErrorCode.STREAM_CLOSED if every else ErrorCode.PROTOCOL_ERROR
            raise ConnectionFault(code, "HEADERS on a stream that is over")
        if stream.half:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of a stream")
        if flags & frames.END_STREAM and isinstance(asked, Trailers):
            streams.data(stream, flags, b"", 0, self._now)
        else:
            streams.reset(stream, ErrorCode.PROTOCOL_ERROR)

    # --- every other frame

    def control(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        match kind:
            case frames.WINDOW_UPDATE:
                self._window_update(number, payload)
            case frames.RST_STREAM:
                self._cancelled(number, payload)
            case frames.SETTINGS:
                self._settings(number, flags, payload)
            case frames.PING:
                self._ping(number, flags, payload)
            case frames.PRIORITY:
                self._priority(number, payload)
            case frames.GOAWAY:
                _size(payload, at_least=8)
                _of_connection(number)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
            case _:
                pass  # frames of extensions are ignored (RFC 9113 section 5.5)
        self._spend()

    def _window_update(self, number: int, payload: bytes) -> None:
        _size(payload, 4)
        streams = self._streams
        increment = int.from_bytes(payload, "big") & frames.STREAM_MASK
        if not number:
            streams.sender.widen(increment)
        else:
            self._must_have_been_open(number)
            stream = streams.open.get(number)
            if stream is None:
                return
            stream.window += increment
            if not increment:
                streams.reset(stream, ErrorCode.PROTOCOL_ERROR)
            elif stream.window > frames.MAX_WINDOW:
                streams.reset(stream, ErrorCode.FLOW_CONTROL_ERROR)
        streams.pump()

    def _must_have_been_open(self, number: int) -> None:
        if not number or number > self._streams.last or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame of a stream that was not opened")

    def _cancelled(self, number: int, payload: bytes) -> None:
        _size(payload, 4)
        self._must_have_been_open(number)
        stream = self._streams.open.get(number)
        if stream is not None:
            self._streams.drop(stream)

    def _settings(self, number: int, flags: int, payload: bytes) -> None:
        _of_connection(number)
        if flags & frames.ACK:
            _size(payload, 0)
            return
        streams = self._streams
        for count, (name, value) in enumerate(frames.read_settings(payload)):
            if count >= self._limits.settings:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many settings in a frame")
            if name == frames.INITIAL_WINDOW_SIZE:
                streams.sender.resize(value, list(streams.open.values()))
            elif name == frames.MAX_FRAME_SIZE:
                streams.sender.frame = value
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        streams.pump()

    def _ping(self, number: int, flags: int, payload: bytes) -> None:
        _of_connection(number)
        _size(payload, 8)
        if not flags & frames.ACK:
            self._write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN_PING and self._draining and not self._closing:
            self._closing = True
            self._write(frames.goaway(self._streams.last, ErrorCode.NO_ERROR, "draining"))
            self._settled()

    def _priority(self, number: int, payload: bytes) -> None:
        """Checked, and without effect (RFC 9113 section 5.3.2)."""
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        _size(payload, 5)
        if int.from_bytes(payload[:4], "big") & frames.STREAM_MASK != number:
            return
        stream = self._streams.open.get(number)
        if stream is not None:
            self._streams.reset(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            self._write(frames.rst_stream(number, ErrorCode.PROTOCOL_ERROR))

    def _spend(self) -> None:
        if not self._streams.allowance.spend(self._now):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames without work in them")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # --- ending

    def _settled(self) -> None:
        """No call is open. The end when draining, and the client knows."""
        if self._closing and not self.finished and self._streams.empty:
            self._linger()

    def _end(self, code: ErrorCode, text: str) -> None:
        """Say why, and up to where this connection was served. What is being computed is dropped."""
        _logger.debug("connection ends: %s: %s", code.name, text)
        self.finished = True
        for stream in list(self._streams.open.values()):
            self._streams.drop(stream)
        self._write(frames.goaway(self._streams.last, code, text))
        self._linger()

    def _linger(self) -> None:
        """Closing at once while the client still sends would reset the connection, and could destroy the GOAWAY on its way."""
        self.finished = self._lingering = True
        self._until = self._host.now() + _LINGER_SECONDS
        if self._transport is not None:
            end_writing(self._transport)


def _size(payload: bytes, exactly: int | None = None, *, at_least: int = 0) -> None:
    if len(payload) < at_least or exactly not in {None, len(payload)}:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "the frame is not of the size its kind has")


def _of_connection(number: int) -> None:
    if number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame of the connection on a stream")


def _send_at_once(connected: socket.socket | None) -> None:
    """Without this an answer can wait 40 ms for an acknowledgement. asyncio itself does it only where proto is not 0."""
    if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
