# SPDX-License-Identifier: Apache-2.0
"""A slot: one request of fixed shapes, repeated over memory that client and server share. What they say of it. Pure.

A client asks for one over the server's unix socket: `POST /v2/models/N[/versions/V]/slot` with `Upgrade: skerry-slot/1`. The
body is the JSON of the binary infer request that will be repeated, without the tensors. A refusal is an ordinary answer.
Else: `101 Switching Protocols`, then a u32 (little-endian) length and a Layout as JSON; a file descriptor of the memory comes
with the first of these bytes. From then on each side sends one byte in turn:

client  RUN      the inputs are in place
server  DONE     the outputs are in place
        LAST     the same, and the slot ends here: the server is about to leave
        REFUSED  followed by a u32 length and a Refusal as JSON; the slot stays

The memory holds tensors and nothing else. Lengths, counters and states are on the socket, so nothing that one side reads
can be changed by the other between two readings. Either side sees the other's end as the end of the connection.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.json import encode

from skerry.oip.messages import Source
from skerry.runtime.datatypes import NUMPY

PROTOCOL: Final = "skerry-slot/1"
RUN: Final = b"\x01"
DONE: Final = b"\x00"
REFUSED: Final = b"\x01"
LAST: Final = b"\x02"
LENGTH: Final = struct.Struct("<I")
MAX_MESSAGE: Final = 64 * 1024
_ALIGNMENT: Final = 64


class Area(Struct, frozen=True, kw_only=True):
    """Where a tensor lies in the memory: `offset` is a multiple of 64."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * NUMPY[self.datatype].itemsize


class Layout(Struct, frozen=True, kw_only=True):
    """`size` of the memory in bytes; inputs in the order of the request, outputs in the model's."""

    model_name: str
    model_version: str
    size: int
    inputs: tuple[Area, ...]
    outputs: tuple[Area, ...]


class Refusal(Struct, frozen=True, kw_only=True):
    error: str
    code: str
    status: int


def lay_out(inputs: Iterable[Source], outputs: Iterable[Source], *, name: str, version: str) -> Layout:
    """One tensor behind the other, each on a cache line of its own; no two share a byte."""
    at = 0
    areas: list[list[Area]] = []
    for tensors in (inputs, outputs):
        areas.append([])
        for tensor in tensors:
            areas[-1].append(Area(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, offset=at))
            at += -(-areas[-1][-1].size // _ALIGNMENT) * _ALIGNMENT
    return Layout(
        model_name=name,
        model_version=version,
        size=max(at, _ALIGNMENT),
        inputs=tuple(areas[0]),
        outputs=tuple(areas[1]),
    )


def with_length(message: Struct) -> bytes:
    data = encode(message)
    return LENGTH.pack(len(data)) + data
