# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets of gRPC: a connection over no socket, and the outermost fields of a message against protobuf itself.

HTTP/2's rules are repeated here, not imported: a defect in the product must not hide in what judges it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from hpack import Decoder

from skerry.errors import InferenceRequestInvalid
from skerry.oip.grpc import wire
from skerry.oip.grpc.descriptors import message_class
from skerry.serve.grpc.connection import GrpcConnection
from skerry.serve.grpc.exchange import Failure, Incoming, Method, Reply
from skerry.serve.grpc.limits import GrpcLimits
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.http.receiving import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST = PREFACE + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HEADERS, _DATA, _RST, _GOAWAY, _END = 1, 0, 3, 7, 1


class Wire(asyncio.Transport):
    """Takes whatever is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.over = False

    def write(self, data: Any) -> None:
        assert not self.over
        self.sent += bytes(data)

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self.over = True

    def close(self) -> None:
        self.over = True

    def abort(self) -> None:
        self.over = True

    def get_write_buffer_size(self) -> int:
        return 0


class World:
    """Host and service: every method gives back what it was sent, its digest when it is asked later."""

    limits = Limits(body_bytes=50_000, held_bytes=100_000, small_body=1000)

    def __init__(self, *, late: bool) -> None:
        self.held = 0
        self.several = False
        self.late = late
        self.due: list[tuple[Incoming, Reply]] = []
        self.asked = 0

    def now(self) -> float:
        return 0.0

    def opened(self, connection: GrpcConnection) -> bool:
        return True

    def closed(self, connection: GrpcConnection) -> None:
        """Nothing is kept of it."""

    def find(self, path: str) -> Method | Failure:
        if path.startswith("/no"):
            return Failure(status=GrpcStatus.UNIMPLEMENTED, text=path)
        return self.take

    def take(self, incoming: Incoming, reply: Reply) -> None:
        self.asked += 1
        if self.late:
            self.due.append((incoming, reply))
        else:
            self.answer(incoming, reply)

    @staticmethod
    def answer(incoming: Incoming, reply: Reply) -> None:
        reply([bytes(incoming.message), hashlib.sha256(incoming.message).digest()])

    def answer_all(self) -> None:
        due, self.due = self.due, []
        for incoming, reply in due:
            self.answer(incoming, reply)


def _conversation(pieces: list[bytes], *, late: bool = False) -> tuple[bytes, int]:
    """What was sent, and how many calls were asked."""
    world = World(late=late)
    connection = GrpcConnection(world, world, GrpcLimits(streams=5, frame_bytes=20_000, burst=100))
    transport = Wire()
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
        assert world.held >= 0
        assert len(world.due) <= 5
    world.answer_all()
    assert connection.deadline >= 0
    if not transport.over:
        connection.drain()
        connection.expire()
    connection.connection_lost(None)
    assert world.held == 0
    return transport.sent, world.asked


def _judge(sent: bytes) -> None:
    """Whole frames, in an order HTTP/2 allows, headers that decode, nothing after a stream's end or a GOAWAY's."""
    decoder = Decoder()
    ended: set[int] = set()
    begun: set[int] = set()
    at = 0
    while at < len(sent):
        size, kind, flags = int.from_bytes(sent[at : at + 3]), sent[at + 3], sent[at + 4]
        stream = int.from_bytes(sent[at + 5 : at + 9])
        payload = sent[at + 9 : at + 9 + size]
        assert len(payload) == size <= 16_384 or kind == _DATA
        assert at or kind == 4, "SETTINGS come first"
        assert kind <= 9
        if kind in {_HEADERS, _DATA}:
            assert stream & 1
            assert stream not in ended, "a frame after the end of its stream"
        if kind == _HEADERS:
            names = dict(decoder.decode(payload, raw=True))
            assert (b":status" in names) == (stream not in begun)
            begun.add(stream)
        if (kind in {_HEADERS, _DATA} and flags & _END) or kind == _RST:
            ended.add(stream)
        at += 9 + size
    assert at == len(sent)


def fuzz_frames(data: bytes) -> None:
    """A conversation is the same however its bytes arrive; what is sent is HTTP/2; all memory is given back.

    The first byte says into what pieces the rest is cut; the preface and SETTINGS are sent before it.
    """
    step = 1 + (data[0] if data else 0)
    body = data[1:]
    whole, asked = _conversation([FIRST, body])
    _judge(whole)
    cut = [body[at : at + step] for at in range(0, len(body), step)]
    assert _conversation([FIRST, *cut])[1] == asked
    later, _ = _conversation([FIRST, *cut], late=True)
    _judge(later)
    _conversation([data])


def fuzz_split(data: bytes) -> None:
    """The fields taken out and those left make the message again; what protobuf refuses is refused."""
    kind = message_class("ModelInferRequest")
    parsed = None
    with contextlib.suppress(DecodeError):
        parsed = kind.FromString(data)
    try:
        parts = wire.split(data)
        again = wire.split(data)
    except InferenceRequestInvalid:
        return
    assert again == parts
    if parsed is None:
        return  # its head is refused when it is parsed
    head = kind.FromString(parts.head)
    head.id = parts.id.decode()
    head.raw_input_contents.extend(bytes(each) for each in parts.raw)
    assert head == parsed
    assert (parts.name, parts.version) == (parsed.model_name, parsed.model_version)


TARGETS: dict[str, Callable[[bytes], None]] = {"grpc_frames": fuzz_frames, "grpc_split": fuzz_split}
