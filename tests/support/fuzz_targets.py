# SPDX-License-Identifier: Apache-2.0
"""What the fuzzers call: each target takes any bytes and fails when an invariant does. Driven by fuzz/run.py with coverage
for as long as wanted, and by tests/properties/test_fuzz_targets.py for seconds.

A target may meet a SkerryError; any other exception is a finding, and so is a run that does not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator

import httptools
import numpy as np
from msgspec import DecodeError, Raw
from msgspec.json import decode as from_json

from skerry.bundle.manifest import Io, TensorSpec
from skerry.errors import InferenceRequestInvalid, RequestTooLarge, SkerryError
from skerry.oip import answers, binary_codec, json_codec, requests
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runtime.datatypes import NUMPY, fits
from skerry.serve.http import encoding
from skerry.serve.http.connection import Connection
from skerry.serve.http.message import Head, HttpRequest, HttpResponse, Reply, refusal
from skerry.serve.http.receiving import Limits
from skerry.serve.http.routes import route

Target = Callable[[bytes], None]


def spec(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def model(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (spec("y", "FP32", -1, 2),)) -> ModelSignature:
    return ModelSignature(name="m", version="1", variant="fp32", io=Io(inputs=inputs, outputs=outputs))


MODELS = (
    model(spec("x", "FP32", -1, 2), outputs=(spec("y", "FP32", -1, 2), spec("label", "INT64", -1))),
    model(spec("a", "INT8", -1), spec("b", "BOOL", 2), spec("s", "BYTES", -1, -1), spec("c", "UINT64")),
    model(spec("x", "FP16", -1, 2), outputs=(spec("y", "FP16", -1, 2),)),
    model(spec("s", "BYTES", 1), outputs=(spec("t", "BYTES", -1),)),
    *(model(spec("x", name, -1, -1), outputs=(spec("y", name, -1, -1),)) for name in sorted(NUMPY)),
)
"""The first byte of an input chooses one."""


# --- requests ------------------------------------------------------------------------------------------------------------


def assert_valid(request: InferRequest, chosen: ModelSignature) -> None:
    assert request.inputs.keys() == chosen.inputs.keys()
    for name, array in request.inputs.items():
        declared = chosen.inputs[name]
        assert array.dtype == NUMPY[declared.dtype], (name, array.dtype)
        assert fits(array.shape, declared), (name, array.shape)
        assert array.dtype != object or all(type(value) is bytes for value in array.flat)
        assert array.flags.aligned
        assert array.dtype != bool or not array.size or array.view(np.uint8).max() <= 1
    assert request.timeout >= 0
    assert [wanted.name for wanted in request.wanted.outputs] == [
        output.name for output in chosen.io.outputs if output.name in {wanted.name for wanted in request.wanted.outputs}
    ]


def same(one: InferRequest, other: InferRequest) -> bool:
    return (
        one.inputs.keys() == other.inputs.keys()
        and all(
            binary_codec.encode_tensor(one.inputs[name]) == binary_codec.encode_tensor(other.inputs[name])
            for name in one.inputs
        )
        and all(one.inputs[name].shape == other.inputs[name].shape for name in one.inputs)
        and (one.id, one.timeout, one.priority) == (other.id, other.timeout, other.priority)
        and one.wanted.outputs == other.wanted.outputs
    )


def outputs_of(chosen: ModelSignature) -> dict[str, np.ndarray]:
    made = {}
    for output in chosen.io.outputs:
        shape = tuple(2 if axis == -1 else axis for axis in output.shape)
        made[output.name] = (
            np.full(shape, b"text", object) if output.dtype == "BYTES" else np.ones(shape, NUMPY[output.dtype])
        )
    return made


def assert_answered(request: InferRequest, chosen: ModelSignature) -> None:
    made = outputs_of(chosen)
    answer = answers.encode(request, made, chosen)
    head = answer.body if answer.header_length is None else answer.body[: answer.header_length]
    document = from_json(head)
    assert [output["name"] for output in document["outputs"]] == [wanted.name for wanted in request.wanted.outputs]
    assert document.get("id") == request.id
    sizes = [output["parameters"]["binary_data_size"] for output in document["outputs"] if "parameters" in output]
    assert sum(sizes) + len(head) == len(answer.body)


def decoded(body: bytes, header: int | None, chosen: ModelSignature) -> InferRequest | None:
    try:
        request = requests.decode(body, header, chosen)
    except InferenceRequestInvalid:
        return None
    assert_valid(request, chosen)
    return request


def request_of(data: bytes, header: int | None, body: bytes) -> None:
    chosen = MODELS[data[0] % len(MODELS)] if data else MODELS[0]
    first, second = decoded(body, header, chosen), decoded(body, header, chosen)
    assert (first is None) == (second is None)
    if first is None or second is None:
        return
    assert same(first, second)  # the second time the head may have been remembered
    assert_answered(first, chosen)
    again, length = requests.encode(first.inputs, chosen)
    third = decoded(again, length, chosen)
    assert third is not None
    assert all(
        binary_codec.encode_tensor(third.inputs[name]) == binary_codec.encode_tensor(first.inputs[name])
        for name in first.inputs
    )


def request_json(data: bytes) -> None:
    request_of(data, None, data[1:])


def request_binary(data: bytes) -> None:
    """The JSON ends at the first NUL byte, or where the second and third byte say."""
    body = data[3:]
    head, found, tail = body.partition(b"\0\0\0\0|")
    if found:
        request_of(data, len(head), head + tail)
    else:
        request_of(data, int.from_bytes(data[1:3], "big"), body)


SHAPES = ((0,), (1,), (2, 2), (1, 3), (0, 5), (2, 0), (), (3, 1, 1))


IN_JSON = sorted(NUMPY.keys() - json_codec.NO_JSON)


def tensor_json(data: bytes) -> None:
    if len(data) < 2:
        return
    datatype = IN_JSON[data[0] % len(IN_JSON)]
    shape = SHAPES[data[1] % len(SHAPES)]
    try:
        from_json(data[2:], type=Raw)
        array = json_codec.decode_tensor("x", datatype, shape, Raw(data[2:]))
    except (DecodeError, UnicodeError, InferenceRequestInvalid):
        return
    assert array.shape == shape
    assert array.dtype == NUMPY[datatype]
    text, odd = json_codec.encode_tensor("x", array)
    assert not odd
    again = json_codec.decode_tensor("x", datatype, shape, text)
    assert np.array_equal(again, array)


def tensor_binary(data: bytes) -> None:
    if len(data) < 2:
        return
    datatype = sorted(NUMPY)[data[0] % len(NUMPY)]
    shape = SHAPES[data[1] % len(SHAPES)]
    try:
        array = binary_codec.decode_tensor("x", datatype, shape, memoryview(data)[2:])
    except InferenceRequestInvalid:
        return
    assert binary_codec.encode_tensor(array) == data[2:]


# --- HTTP ----------------------------------------------------------------------------------------------------------------


class FuzzTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.eof = self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof
        self.sent += data

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        for part in parts:
            self.write(part)

    def write_eof(self) -> None:
        assert not self.eof
        self.eof = True

    def close(self) -> None:
        self.eof = True

    def abort(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


KNOWN: dict[bytes, Head] = {}


class FuzzHost:
    """Answers what it was asked, at once or late. What is remembered of heads is so from one conversation to the next, as
    in a server: nobody's bytes may change what another's mean.
    """

    def __init__(self, *, late: bool) -> None:
        self.known = KNOWN
        self.elsewhere = None
        self.limits = Limits(body_bytes=4000, held_bytes=8000, small_body=100, head_bytes=1000, headers=20)
        self.held = 0
        self.late = late
        self.elsewhere = self.http2 = None
        self.several = False
        self.due: list[Callable[[], None]] = []

    def now(self) -> float:
        return 0.0

    def handle(self, request: HttpRequest, reply: Reply) -> None:
        head = request.head
        try:
            found = route(head.method, head.target)
            text = f"{found.endpoint} {found.model} {found.version} {zlib.crc32(request.body)} {sorted(head.headers.items())}"
            answer = HttpResponse(body=text.encode())
        except SkerryError as error:
            answer = refusal(error)
        if self.late:
            self.due.append(lambda: reply(answer))
        else:
            reply(answer)

    def opened(self, connection: Connection) -> bool:
        return True

    def closed(self, connection: Connection) -> None:
        pass


def conversation(parts: list[bytes], *, late: bool = False) -> tuple[bytes, bool]:
    """What a connection sends when `parts` arrive one after another, and whether it then ends."""
    host, transport = FuzzHost(late=late), FuzzTransport()
    connection = Connection(host)
    connection.connection_made(transport)
    for part in parts:
        connection.data_received(part)
        while host.due:
            host.due.pop(0)()
    assert not transport.paused
    sent, ended = bytes(transport.sent), transport.eof
    connection.connection_lost(None)
    assert host.held == 0
    return sent, ended


class Answers:
    """Reads answers as a client's parser does."""

    def __init__(self) -> None:
        self.complete = 0

    def on_message_complete(self) -> None:
        self.complete += 1


def assert_well_formed(sent: bytes) -> None:
    """Every answer whole; a body only where the head says so. What answers HEAD is left out: the reader cannot know."""
    reader = Answers()
    parser = httptools.HttpResponseParser(reader)
    parser.feed_data(sent)
    assert not sent or reader.complete


def cut(data: bytes, sizes: bytes) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        step = 1 + size % 61
        yield data[at : at + step]
        at += step
    yield data[at:]


def http_connection(data: bytes) -> None:
    """A conversation is the same however its bytes arrive, whenever the answers come, and what is sent is HTTP."""
    pieces, body = data[1 : 1 + data[0] % 16] if data else b"", data[1 + data[0] % 16 :] if data else b""
    whole = conversation([body])
    assert conversation([part for part in cut(body, pieces) if part]) == whole
    assert conversation([body], late=True) == whole
    if b"HEAD" not in body:
        assert_well_formed(whole[0])


def http_target(data: bytes) -> None:
    method, _, target = data.decode("latin-1").partition(" ")
    with contextlib.suppress(SkerryError):
        route(method, target)


# --- encodings -----------------------------------------------------------------------------------------------------------

INFLATED = 4096


def inflate(data: bytes) -> None:
    name = ("gzip", "deflate", "x-gzip", "identity")[data[0] % 4] if data else "gzip"
    with contextlib.suppress(InferenceRequestInvalid, RequestTooLarge):
        assert len(encoding.inflate(data[1:], name, limit=INFLATED)) <= max(INFLATED, len(data))
    if name != "identity" and len(data) <= INFLATED:
        squeezed = encoding.deflate(data, name.removeprefix("x-"))
        assert encoding.inflate(squeezed, name, limit=INFLATED) == data
    chosen = encoding.choose(data[1:].decode("latin-1"), 2000)
    assert chosen in {"", "gzip", "deflate"}


TARGETS: dict[str, Target] = {
    "request_json": request_json,
    "request_binary": request_binary,
    "tensor_json": tensor_json,
    "tensor_binary": tensor_binary,
    "http_connection": http_connection,
    "http_target": http_target,
    "inflate": inflate,
}
