# SPDX-License-Identifier: Apache-2.0
"""Attacks on HTTP/2 that have a name, against the gRPC side of a runner: each ends its own connection, or gains nothing."""

import struct

import pytest
from onnx import TensorProto
from tritonclient.grpc import service_pb2 as pb

from contracts.engine.models import affine_answer, identity
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.http.receiving import Limits
from unit.serve.grpc import h2
from unit.serve.grpc.rig import GrpcRig, X, request

PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, CONNECT, CALM = range(1, 12)
PLAIN = request().SerializeToString()
LIVE = "/inference.GRPCInferenceService/ServerLive"


def until_gone(rig, frames, *, at_most):
    """How many frames it took."""
    for number, data in zip(range(at_most), frames, strict=False):
        if rig.transport.eof:
            return number
        rig.send(data)
    raise AssertionError(f"{at_most} frames, and the connection goes on")


def forever(data):
    while True:
        yield data


def test_rapid_reset_cve_2023_44487_occupies_no_more_than_its_streams():
    """Resetting a call does not free its place while its work goes on."""
    rig = GrpcRig(cost=1.0, hold=True, queue=10_000)
    for _ in range(400):
        stream, wire = rig.peer.call(PLAIN)
        rig.send(wire + h2.rst(stream))
    assert rig.desk.waiting <= 100
    assert [rig.peer.answers[stream].reset for stream in (201, 203, 205)] == [REFUSED] * 3


def test_rapid_reset_cve_2023_44487_ends_the_connection():
    rig = GrpcRig(cost=1.0, hold=True, queue=10_000)

    def calls():
        while True:
            stream, wire = rig.peer.call(PLAIN)
            yield wire + h2.rst(stream)

    assert until_gone(rig, calls(), at_most=2000) <= 1200
    assert rig.gone == CALM


def test_resets_provoked_from_the_server_madeyoureset_cve_2025_8671():
    """The client makes the server reset its own streams, by windows that overflow: they keep their places, too."""
    rig = GrpcRig(cost=1.0, hold=True, queue=10_000)
    with pytest.raises(AssertionError, match="goes on"):
        until_gone(rig, _overflowing(rig), at_most=300)
    assert rig.desk.waiting <= 100
    assert until_gone(rig, _overflowing(rig), at_most=2000)
    assert rig.gone == CALM


def _overflowing(rig):
    while True:
        stream, wire = rig.peer.call(PLAIN)
        yield wire + h2.window_update(stream, (1 << 31) - 1)


@pytest.mark.parametrize("kind", ["empty", "filled"])
def test_continuation_flood_cve_2024_27316(kind):
    rig = GrpcRig()
    rig.send(h2.frame(h2.HEADERS, 0, 1, b""))
    part = b"" if kind == "empty" else b"\0\1a" + b"\x7f\x81\7" + b"v" * 1000
    assert until_gone(rig, forever(h2.frame(h2.CONTINUATION, 0, 1, part)), at_most=100) <= 40
    assert rig.gone == CALM


@pytest.mark.parametrize("amount", ["in bytes", "in number"])
def test_header_bomb_of_hpack_cve_2016_6581(amount):
    """A few bytes that name a large entry of the table again and again."""
    rig = GrpcRig()
    entry = b"\x40\x01a" + b"\x7f\xd1\x1e" + b"v" * 4000 if amount == "in bytes" else b"\x40\x01a\x01b"
    rig.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, entry + b"\xbe" * 8000))
    assert rig.gone == CALM


def test_a_header_list_beyond_its_limit_without_a_table():
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, [*h2.call_headers(), *((f"x{at}", "v" * 100) for at in range(200))]))
    assert rig.gone == CALM


def test_table_resized_beyond_what_was_agreed():
    rig = GrpcRig()
    rig.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x3f\xe2\x1f\x82"))
    assert rig.gone == COMPRESSION


@pytest.mark.parametrize(
    "block", [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xbe", b"\x80", b"\x40\x05ab", b"\x00\x81\xff\x00"]
)
def test_header_blocks_that_are_none(block):
    rig = GrpcRig()
    rig.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block))
    assert rig.gone in {COMPRESSION, CALM}


FLOODS = {
    "ping flood cve 2019 9512": lambda: h2.frame(h2.PING, 0, 0, b"12345678"),
    "settings flood cve 2019 9515": lambda: h2.settings(window=70_000),
    "settings with nothing in them": h2.settings,
    "acknowledgements of nothing": lambda: h2.frame(h2.SETTINGS, h2.ACK),
    "resource loop cve 2019 9513": lambda: h2.frame(h2.PRIORITY, 0, 3, b"\0\0\0\0\0"),
    "empty frames flood cve 2019 9518": lambda: h2.frame(h2.DATA, 0, 1),
    "padding and nothing else": lambda: h2.frame(h2.DATA, h2.PADDED, 1, b"\3\0\0\0"),
    "frames nobody knows": lambda: h2.frame(0xBE, 0xFF, 1, b"abc"),
    "window updates of one byte": lambda: h2.window_update(0, 1),
    "going away again and again": lambda: h2.frame(h2.GOAWAY, 0, 0, bytes(8)),
}


OF_AN_OPEN_STREAM = {"empty frames flood cve 2019 9518", "padding and nothing else"}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_frames_without_work_in_them(name):
    rig = GrpcRig(window=65_535)
    rig.send(rig.peer.headers(1, h2.call_headers()))
    assert until_gone(rig, forever(FLOODS[name]()), at_most=3000) <= 1001
    assert rig.gone == CALM


@pytest.mark.parametrize("name", sorted(FLOODS.keys() - OF_AN_OPEN_STREAM))
def test_a_few_such_frames_per_call_are_no_flood(name):
    rig = GrpcRig(window=65_535)
    for _ in range(1000):
        stream, wire = rig.peer.call(PLAIN)
        rig.send(FLOODS[name]())
        rig.send(wire)
        assert rig.peer.answers[stream].ended
        rig.send(h2.window_update(0, len(rig.peer.answers[stream].data)))
    assert rig.gone is None


def test_a_flood_at_the_pace_of_a_heartbeat_is_none():
    rig = GrpcRig()
    for _ in range(5000):
        rig.clock.advance(0.02)
        rig.send(h2.frame(h2.PING, 0, 0, bytes(8)))
    assert rig.gone is None


def test_zero_length_headers_cve_2019_9516():
    rig = GrpcRig()
    rig.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\0\0\0" * 2000))
    assert rig.gone == CALM


def test_too_many_settings_in_a_frame():
    rig = GrpcRig()
    rig.send(h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 70_000) * 1000))
    assert rig.gone == CALM


def test_data_dribble_cve_2019_9511_is_reset_after_a_while():
    """A window opened by single bytes, so that a large answer stays in memory."""
    rig = GrpcRig({"m": identity(TensorProto.FLOAT, [None, None])}, window=0)
    rig.send(h2.window_update(0, 1 << 20))
    rig.call(request(X.repeat(10_000, axis=1)))
    rig.send(h2.window_update(1, 1))
    rig.clock.advance(rig.limits.write_seconds + 1)
    assert rig.connection.deadline < rig.now()
    rig.connection.expire()
    rig.take()
    assert rig.peer.answers[1].reset == CANCEL
    assert rig.connection.idle


def test_internal_data_buffering_cve_2019_9517_is_bounded():
    """Windows wide open, and nothing read from the socket: answers are not made without end."""
    rig = GrpcRig({"m": identity(TensorProto.FLOAT, [None, None])})
    rig.connection._limits = limits = type(rig.connection._limits)(unsent_bytes=1_000_000)
    rig.connection._streams.limits = limits
    rig.connection.pause_writing()
    rig.transport.reading_paused = False
    for _ in range(10):
        rig.call(request(X.repeat(25_000, axis=1)))
    assert rig.connection._streams.sender.unsent <= 1_000_000
    assert [rig.peer.answers[stream].headers.get("grpc-status") for stream in (1, 3, 5, 19)] == [None, None, "8", "8"]


def test_a_socket_nobody_reads_is_cut_off():
    rig = GrpcRig()
    rig.transport.buffered = 1000
    rig.connection.pause_writing()
    rig.clock.advance(rig.limits.write_seconds + 1)
    assert rig.connection.deadline < rig.now()
    rig.connection.expire()
    assert rig.transport.aborted


def test_no_pongs_pile_up_for_a_client_that_does_not_read():
    rig = GrpcRig()
    rig.connection.pause_writing()
    assert rig.transport.reading_paused


def test_more_streams_than_announced():
    rig = GrpcRig(cost=1.0, hold=True, queue=10_000)
    calls = [rig.peer.call(PLAIN) for _ in range(150)]
    rig.send(b"".join(wire for _, wire in calls))
    assert sum(rig.peer.answers.get(stream) is not None for stream, _ in calls) == 50
    while rig.pool.jobs:
        rig.pool.release()
    rig.take()
    answers = [rig.peer.answers[stream] for stream, _ in calls]
    assert sum(answer.reset == REFUSED for answer in answers) == 50
    good = [pb.ModelInferResponse.FromString(answer.message) for answer in answers if answer.reset is None]
    assert {each.raw_output_contents[0] for each in good} == {affine_answer(X).tobytes()}


def test_a_message_that_claims_2_gib_holds_nothing():
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, h2.call_headers()) + h2.frame(h2.DATA, 0, 1, b"\0\x7f\xff\xff\xff" + bytes(100)))
    assert rig.peer.answers[1].status == GrpcStatus.RESOURCE_EXHAUSTED
    assert rig.held == 0


def test_many_messages_that_never_end_share_one_memory():
    rig = GrpcRig(limits=Limits(held_bytes=1_000_000, small_body=1000))
    head = h2.message(bytes(400_000))
    wire = b"".join(
        rig.peer.headers(stream, h2.call_headers())
        + b"".join(h2.frame(h2.DATA, 0, stream, head[at : at + 16_000]) for at in range(0, 320_000, 16_000))
        for stream in range(1, 41, 2)
    )
    rig.send(wire)
    assert rig.held <= 1_000_000
    refused = [answer for answer in rig.peer.answers.values() if answer.ended]
    assert len(refused) >= 16
    assert {answer.status for answer in refused} == {GrpcStatus.UNAVAILABLE}


RULES = {
    "no preface": (None, b"GET / HTTP/1.1\r\n\r\n" + bytes(30), PROTOCOL),
    "no settings first": (None, h2.PREFACE + h2.frame(h2.PING, 0, 0, bytes(8)), PROTOCOL),
    "an acknowledgement first": (None, h2.PREFACE + h2.frame(h2.SETTINGS, h2.ACK), PROTOCOL),
    "frame too large": (b"\xff\xff\xff\0\0\0\0\0\1", b"", SIZE),
    "control frame too large": (b"\x0f\xff\xff\x07\0\0\0\0\0", b"", CALM),
    "settings on a stream": (h2.frame(h2.SETTINGS, 0, 1), b"", PROTOCOL),
    "settings cut short": (h2.frame(h2.SETTINGS, 0, 0, b"abc"), b"", SIZE),
    "settings acknowledged with content": (h2.frame(h2.SETTINGS, h2.ACK, 0, bytes(6)), b"", SIZE),
    "push enabled by half": (h2.settings(push=2), b"", PROTOCOL),
    "window beyond all": (h2.settings(window=1 << 31), b"", FLOW),
    "frame size too small": (h2.settings(frame=100), b"", PROTOCOL),
    "ping on a stream": (h2.frame(h2.PING, 0, 1, bytes(8)), b"", PROTOCOL),
    "ping of 7 bytes": (h2.frame(h2.PING, 0, 0, bytes(7)), b"", SIZE),
    "going away on a stream": (h2.frame(h2.GOAWAY, 0, 1, bytes(8)), b"", PROTOCOL),
    "going away cut short": (h2.frame(h2.GOAWAY, 0, 0, bytes(4)), b"", SIZE),
    "promise of a push": (h2.frame(h2.PUSH, 4, 1, bytes(4)), b"", PROTOCOL),
    "window update of 0": (h2.window_update(0, 0), b"", PROTOCOL),
    "window update of 3 bytes": (h2.frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)), b"", SIZE),
    "window overflow": (h2.window_update(0, (1 << 31) - 1) * 2, b"", FLOW),
    "window update of a stream nobody opened": (h2.window_update(5, 5), b"", PROTOCOL),
    "reset of a stream nobody opened": (h2.rst(5), b"", PROTOCOL),
    "reset of the connection": (h2.rst(0), b"", PROTOCOL),
    "reset of 3 bytes": (h2.frame(h2.RST, 0, 1, bytes(3)), b"", SIZE),
    "priority of the connection": (h2.frame(h2.PRIORITY, 0, 0, bytes(5)), b"", PROTOCOL),
    "priority of 4 bytes": (h2.frame(h2.PRIORITY, 0, 1, bytes(4)), b"", SIZE),
    "data on the connection": (h2.frame(h2.DATA, 0, 0, b"a"), b"", PROTOCOL),
    "data on a stream nobody opened": (h2.frame(h2.DATA, 0, 5, b"a"), b"", PROTOCOL),
    "data of nothing but padding": (h2.frame(h2.DATA, h2.PADDED, 1, b"\5abc"), b"", PROTOCOL),
    "data padded by nothing": (h2.frame(h2.DATA, h2.PADDED, 1, b""), b"", PROTOCOL),
    "headers on the connection": (h2.frame(h2.HEADERS, 4, 0, b"\x82"), b"", PROTOCOL),
    "headers on an even stream": (h2.frame(h2.HEADERS, 4, 2, b"\x82"), b"", PROTOCOL),
    "headers too short for their priority": (h2.frame(h2.HEADERS, 4 | 32, 1, b"ab"), b"", SIZE),
    "continuation of nothing": (h2.frame(h2.CONTINUATION, 4, 1, b"\x82"), b"", PROTOCOL),
    "continuation of another stream": (
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.CONTINUATION, 4, 3),
        b"",
        PROTOCOL,
    ),
    "another frame within headers": (
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.PING, 0, 0, bytes(8)),
        b"",
        PROTOCOL,
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_ends_the_connection_with_its_code(rule):
    after, instead, code = RULES[rule]
    rig = GrpcRig()
    if after is None:
        rig.connection.connection_lost(None)
        rig.connection = type(rig.connection)(rig, rig.service)
        rig.connection.connection_made(rig.transport)
        after = instead
    rig.send(after)
    assert rig.gone == code
    assert rig.transport.eof
    rig.connection.data_received(rig.peer.call(PLAIN)[1])
    assert rig.take() == []


def test_streams_that_go_backwards():
    rig = GrpcRig()
    rig.send(rig.peer.headers(5, h2.call_headers()))
    rig.send(rig.peer.headers(3, h2.call_headers()))
    assert rig.gone == PROTOCOL


def test_headers_after_the_end_of_a_stream():
    rig = GrpcRig(cost=1.0, hold=True)
    rig.call(PLAIN)
    rig.send(rig.peer.headers(1, h2.call_headers()))
    assert rig.gone == CLOSED


def test_a_stream_used_twice():
    rig = GrpcRig()
    rig.call(PLAIN)
    rig.send(rig.peer.headers(1, h2.call_headers()))
    assert rig.gone == CLOSED


def test_data_after_the_end_of_a_stream():
    rig = GrpcRig(cost=1.0, hold=True)
    rig.call(PLAIN)
    rig.send(h2.frame(h2.DATA, 0, 1, b"abc"))
    assert rig.peer.answers[1].reset == CLOSED
    assert rig.gone is None


MALFORMED = {
    "upper case": [("X-A", "1")],
    "a space in a name": [("x a", "1")],
    "an empty name": [("", "1")],
    "of a connection": [("connection", "close")],
    "transfer encoding": [("transfer-encoding", "chunked")],
    "te gzip": [("te", "gzip")],
    "a line break": [("x-a", "1\r\nx-b: 2")],
    "a zero byte": [("x-a", "\0")],
    "a late pseudo-header": [(":path", "/x")],
    "an unknown pseudo-header": [(":status", "200")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_request_smuggling_by_headers_http_1_would_misread(name):
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, [*h2.call_headers(te=None), *MALFORMED[name]], flags=5))
    assert rig.peer.answers[1].reset == PROTOCOL
    assert rig.gone is None


@pytest.mark.parametrize("missing", [":method", ":path", ":scheme"])
def test_pseudo_headers_missing_or_twice(missing):
    rig = GrpcRig()
    fields = [field for field in h2.call_headers() if field[0] != missing]
    rig.send(rig.peer.headers(1, fields, flags=5))
    rig.send(rig.peer.headers(3, [(missing, "x"), *h2.call_headers()], flags=5))
    assert [rig.peer.answers[stream].reset for stream in (1, 3)] == [PROTOCOL, PROTOCOL]


def test_a_stream_that_depends_on_itself():
    rig = GrpcRig()
    block = rig.peer.encoder.encode(h2.call_headers())
    rig.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.WITH_PRIORITY, 1, b"\0\0\0\1\0" + block))
    assert rig.peer.answers[1].reset == PROTOCOL
    rig.send(h2.frame(h2.PRIORITY, 0, 3, b"\0\0\0\3\0"))
    assert rig.peer.answers[3].reset == PROTOCOL


@pytest.mark.parametrize(("length", "sent"), [("10", 5), ("5", 10), ("3", 5)])
def test_a_length_that_lies(length, sent):
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, h2.call_headers(LIVE, content_length=length)))
    rig.send(h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"").ljust(sent, b"\0")))
    assert rig.peer.answers[1].reset == PROTOCOL
    assert rig.call(b"", LIVE, content_length="5") is not None


def test_pseudo_headers_in_trailers():
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, h2.call_headers(LIVE)) + h2.frame(h2.DATA, 0, 1, h2.message(b"")))
    rig.send(rig.peer.headers(1, [(":method", "POST")], flags=5))
    assert rig.peer.answers[1].reset == PROTOCOL
