# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 and gRPC as bytes, from the client's side and by another hand than the server's: nothing here is the product's."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from urllib.parse import unquote

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
INFER = "/inference.GRPCInferenceService/ModelInfer"


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(**values):
    numbers = {
        "table": 1,
        "push": 2,
        "streams": 3,
        "window": 4,
        "frame": 5,
        "headers": 6,
    }
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items()))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst(stream, code=8):
    return frame(RST, 0, stream, struct.pack(">I", code))


def message(data, *, packed=False):
    """gRPC's length-prefixed message."""
    return bytes((packed,)) + len(data).to_bytes(4, "big") + data


def call_headers(path=INFER, **more):
    named = {name.replace("_", "-"): value for name, value in more.items()}
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "h",
        "content-type": "application/grpc",
        "te": "trailers",
        **named,
    }
    return [(name, value) for name, value in fields.items() if value is not None]


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self):
        """Of RST_STREAM and GOAWAY."""
        return struct.unpack_from(">I", self.payload, 4 if self.kind == GOAWAY else 0)[0]


@dataclass
class Answer:
    """What one stream was sent."""

    headers: dict = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self):
        return int(self.headers["grpc-status"])

    @property
    def text(self):
        return unquote(self.headers.get("grpc-message", ""))

    @property
    def message(self):
        """The only message."""
        assert self.status == 0, self.text
        assert self.data[:1] == b"\0"
        assert int.from_bytes(self.data[1:5], "big") == len(self.data) - 5
        return self.data[5:]


class Peer:
    """A client's memory of a connection: encodes requests, takes apart what the server sends."""

    def __init__(self, *, indexing=True):
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.indexing = indexing
        self.next = 1
        self.answers = {}
        self.frames = []
        self._rest = b""

    def headers(self, stream, fields, *, flags=END_HEADERS):
        return frame(HEADERS, flags, stream, self.encoder.encode(fields))

    def call(self, data, path=INFER, *, packed=False, flags=END_STREAM, **headers):
        """(stream, bytes of the whole call)."""
        stream, self.next = self.next, self.next + 2
        head = self.headers(stream, call_headers(path, **headers))
        body = message(data, packed=packed)
        pieces = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
        frames = [frame(DATA, 0, stream, piece) for piece in pieces[:-1]]
        return stream, head + b"".join(frames) + frame(DATA, flags, stream, pieces[-1])

    def take(self, data):
        """The frames in `data`, also noted under their streams."""
        self._rest += data
        new = []
        while len(self._rest) >= 9:
            size = int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < 9 + size:
                break
            kind, flags = self._rest[3], self._rest[4]
            stream = int.from_bytes(self._rest[5:9], "big")
            new.append(Frame(kind, flags, stream, self._rest[9 : 9 + size]))
            self._rest = self._rest[9 + size :]
        for each in new:
            self._note(each)
        self.frames += new
        return new

    def _note(self, new):
        if not new.stream:
            return
        answer = self.answers.setdefault(new.stream, Answer())
        assert not answer.ended or new.kind == RST, "a frame after the end of a stream"
        if new.kind == HEADERS:
            assert new.flags & END_HEADERS
            answer.headers.update(dict(self.decoder.decode(new.payload)))
        elif new.kind == DATA:
            answer.data += new.payload
        elif new.kind == RST:
            answer.reset = new.code
            return
        answer.ended = bool(new.flags & END_STREAM)

    def of(self, kind):
        return [each for each in self.frames if each.kind == kind]
