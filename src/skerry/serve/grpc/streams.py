# SPDX-License-Identifier: Apache-2.0
"""The calls of one connection, each on its stream: opened, received, asked, answered, reset."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from skerry.errors import InferenceRequestInvalid, Overloaded, SkerryError
from skerry.serve.grpc import frames
from skerry.serve.grpc.exchange import Failure, Incoming, Payload, Service, failure
from skerry.serve.grpc.frames import ErrorCode
from skerry.serve.grpc.headers import Ask
from skerry.serve.grpc.limits import Allowance, GrpcLimits, ServerLimits
from skerry.serve.grpc.sender import Sender
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.grpc.stream import PREFIX, State, Stream

_SLACK: Final = 64 * 1024  # of a stream's window over the largest message
_MAX_RESET: Final = 256  # streams that were reset and whose client may not have noticed


class Server(Protocol):
    """What calls need of the server."""

    held: int  # bytes of messages received and not answered
    several: bool  # more than one call may be in what is being read

    @property
    def limits(self) -> ServerLimits: ...

    def now(self) -> float: ...


class Streams:
    """`settled` is called whenever the last call has ended. A cancelled one has not until the service is done with it."""

    def __init__(
        self,
        server: Server,
        service: Service,
        transport: asyncio.Transport,
        limits: GrpcLimits,
        settled: Callable[[], None],
    ) -> None:
        self._server = server
        self._service = service
        self._transport = transport
        self._settled = settled
        self.limits = limits
        self.taken = server.limits
        self.sender = Sender(transport)
        self.allowance = Allowance(limits, server.now())
        self.open: dict[int, Stream] = {}
        self.gone = 0  # cancelled calls that the service still has
        self.last = 0  # the latest stream opened
        self.opened = 0  # how many were
        self.window = min(frames.MAX_WINDOW, self.taken.body_bytes + _SLACK)
        """Of a stream, for its client: a message fits, so that nobody has to wait for more of it."""
        self.moved = 0.0  # when something was last sent of what waits
        self._reset: OrderedDict[int, None] = OrderedDict()
        self._held = 0  # this connection's share of what the server holds
        self._over = self._pumping = False

    @property
    def empty(self) -> bool:
        return not self.open and not self.gone

    @property
    def full(self) -> bool:
        return len(self.open) + self.gone >= self.limits.streams

    @property
    def oldest(self) -> Stream | None:
        """Of those whose message has not arrived."""
        return next((stream for stream in self.open.values() if stream.state is State.RECEIVING), None)

    def begin(self, number: int, ask: Ask, now: float) -> None:
        method = self._service.find(ask.path)
        stream = Stream(number, ask, self.sender.initial, now)
        self.open[number] = stream
        if isinstance(method, Failure):
            self.fail(stream, method)
        else:
            stream.method = method

    def refused(self, path: str) -> Failure:
        """What a call without a message is told."""
        found = self._service.find(path)
        none = Failure(status=GrpcStatus.INVALID_ARGUMENT, text="there is no message")
        return found if isinstance(found, Failure) else none

    def whole(self, number: int, ask: Ask, message: bytes, now: float) -> None:
        """`begin` and `data` at once, for a call that came in one piece."""
        method = self._service.find(ask.path)
        stream = Stream(number, ask, self.sender.initial, now)
        stream.half = True
        self.open[number] = stream
        if isinstance(method, Failure):
            self.fail(stream, method)
            return
        stream.state = State.ASKED
        stream.received = size = len(message)
        self._held += size
        self._server.held += size
        timeout = ask.timeout
        call = method(
            Incoming(message=message, received=now, deadline=0.0 if timeout is None else now + timeout),
            partial(self._answer, stream),
        )
        if stream.state is State.ASKED and number in self.open:  # not answered yet
            stream.call = call

    # --- receiving

    def data(self, stream: Stream, flags: int, payload: bytes, size: int, now: float) -> None:
        """`size` counts the padding, which `payload` is without."""
        stream.received += size
        self._hold(size)
        if (
            flags == frames.END_STREAM
            and size >= PREFIX
            and not stream.body
            and not payload[0]
            and int.from_bytes(payload[1:PREFIX], "big") == size - PREFIX
            and size <= self.taken.small_body
            and stream.ask.length is None
        ):
            stream.half = True
            self._ask(stream, payload[PREFIX:], "", now)
            return
        try:
            self._collect(stream, flags, payload, now)
        except SkerryError as error:
            self.fail(stream, failure(error))

    def _collect(self, stream: Stream, flags: int, payload: bytes, now: float) -> None:
        """Raises SkerryError."""
        if stream.received > self.window:
            self.reset(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        stream.half = bool(flags & frames.END_STREAM)
        if not _as_announced(stream, len(stream.body) + len(payload)):
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)  # RFC 9113 section 8.1.1
            return
        stream.take(payload, self.taken.body_bytes)
        if self._server.held > self.taken.held_bytes and len(stream.body) > self.taken.small_body:
            raise Overloaded(retry_after=1)
        if stream.half:
            packed, message = stream.message()
            if packed and not stream.ask.encoding:
                raise InferenceRequestInvalid(problem="the message is compressed, and no grpc-encoding says how")
            self._ask(stream, message, stream.ask.encoding if packed else "", now)

    # --- answering

    def _ask(self, stream: Stream, message: bytes | bytearray, encoding: str, now: float) -> None:
        stream.state = State.ASKED
        incoming = Incoming(message=message, received=now, deadline=stream.deadline, encoding=encoding)
        call = stream.method(incoming, partial(self._answer, stream))
        if stream.state is State.ASKED and stream.id in self.open:  # not answered yet
            stream.call = call

    def _answer(self, stream: Stream, answer: Payload | Failure) -> None:
        stream.call = None  # which refers back to here
        if self._over:
            return
        if stream.state is State.GONE:
            self.gone -= 1
            self._release(stream)
            self._settle()
        elif isinstance(answer, Failure):
            self.fail(stream, answer)
        elif self.sender.whole(stream, answer):
            self._done(stream)
        else:
            self._answer_slowly(stream, answer)

    def _answer_slowly(self, stream: Stream, payload: Payload) -> None:
        sender = self.sender
        if sender.unsent and sender.unsent + sum(map(len, payload)) > self.limits.unsent_bytes:
            text = "the answers before this one are not taken"
            self.fail(stream, Failure(status=GrpcStatus.RESOURCE_EXHAUSTED, text=text))
            return
        self._release(stream)
        stream.state = State.SENDING
        if not sender.sending:
            self.moved = self._server.now()
        sender.begin(stream, payload)
        self.pump()

    def pump(self) -> None:
        """Send what the windows have come to let through."""
        sender = self.sender
        if self._over or not sender.sending or self._pumping:
            return
        self._pumping = True
        before = sender.unsent
        done = sender.pump()
        self._pumping = False
        if sender.unsent != before:
            self.moved = self._server.now()
            self.allowance.earn(1 + (before - sender.unsent) // sender.frame)
        for stream in done:
            self._done(stream)

    def fail(self, stream: Stream, answer: Failure) -> None:
        self.sender.fail(stream.id, answer)
        if not stream.half:
            self.refuse(stream.id, ErrorCode.NO_ERROR)
        self._done(stream)

    def _done(self, stream: Stream) -> None:
        """Answered: it was worth a few frames."""
        del self.open[stream.id]
        if stream.received:
            self._release(stream)
        self.allowance.earn()
        if not self.open and not self.gone:
            self._settled()

    # --- resetting

    def drop(self, stream: Stream) -> None:
        """Nobody wants the answer any more."""
        del self.open[stream.id]
        self.sender.forget(stream)
        if stream.state is State.ASKED:
            self.gone += 1
            _tell(stream)
        else:
            self._release(stream)
        stream.state = State.GONE
        self._settle()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        self.refuse(stream.id, code)
        self.drop(stream)

    def refuse(self, number: int, code: ErrorCode) -> None:
        """Its client may go on sending until it has heard: those frames are nothing to complain about."""
        self._transport.write(frames.rst_stream(number, code))
        self._reset[number] = None
        if len(self._reset) > _MAX_RESET:
            self._reset.popitem(last=False)

    def was_reset(self, number: int) -> bool:
        return number in self._reset

    def close(self) -> None:
        """The transport is gone. Answers still come, to nobody."""
        self._over = True
        self._settled = _nobody_waits  # it refers back to the connection
        self._hold(-self._held)
        for stream in self.open.values():
            _tell(stream)
        self.open.clear()
        self.sender.sending.clear()

    # --- accounts

    def _hold(self, size: int) -> None:
        self._held += size
        self._server.held += size

    def _release(self, stream: Stream) -> None:
        self._hold(-stream.received)
        stream.received = 0

    def _settle(self) -> None:
        if not self.open and not self.gone:
            self._settled()


def _as_announced(stream: Stream, size: int) -> bool:
    """Whether `size` bytes of DATA so far agree with the stream's content-length."""
    length = stream.ask.length
    return length is None or (size == length if stream.half else size <= length)


def _tell(stream: Stream) -> None:
    """The one who has the call: its client has gone."""
    if stream.call is not None:
        stream.call.gone = True


def _nobody_waits() -> None:
    """For the end of the last call."""
