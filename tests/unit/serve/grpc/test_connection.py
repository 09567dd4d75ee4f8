# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 under honest clients: pieces, windows, cancelling, draining, time."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto
from tritonclient.grpc import service_pb2 as pb

from contracts.engine.models import affine_answer, identity
from skerry.runtime.costs import Costs
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.http.receiving import Limits
from skerry.serve.scheduling.lanes import InlineLane, Turn
from skerry.serve.scheduling.placing import place
from unit.serve.grpc import h2
from unit.serve.grpc.rig import GrpcRig, X, request

PLAIN = request().SerializeToString()
LIVE = "/inference.GRPCInferenceService/ServerLive"
RIGHT = affine_answer(X).tobytes()


def raw_of(answer):
    return pb.ModelInferResponse.FromString(answer.message).raw_output_contents[0]


def test_what_the_server_says_first():
    rig = GrpcRig()
    first = rig.peer.frames[0]
    assert first.kind == h2.SETTINGS
    assert not first.stream
    values = {
        int.from_bytes(first.payload[at : at + 2]): int.from_bytes(first.payload[at + 2 : at + 6])
        for at in range(0, len(first.payload), 6)
    }
    assert values[3] == 100
    assert values[4] > rig.limits.body_bytes
    assert any(each.kind == h2.SETTINGS and each.flags & h2.ACK for each in rig.peer.frames)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9, 10, 100])
def test_everything_may_arrive_in_pieces(size):
    rig = GrpcRig()
    wire = b"".join(rig.peer.call(PLAIN)[1] for _ in range(3)) + h2.frame(h2.PING, 0, 0, b"12345678")
    for at in range(0, len(wire), size):
        rig.send(wire[at : at + size])
    assert [raw_of(rig.peer.answers[stream]) for stream in (1, 3, 5)] == [RIGHT] * 3
    assert rig.peer.frames[-1].payload == b"12345678"


def test_the_preface_in_pieces():
    rig = GrpcRig()
    rig.connection.connection_lost(None)
    fresh = type(rig.connection)(rig, rig.service)
    fresh.connection_made(rig.transport)
    hello = h2.PREFACE + h2.settings() + rig.peer.call(PLAIN)[1]
    for at in range(len(hello)):
        fresh.data_received(hello[at : at + 1])
    rig.take()
    assert raw_of(rig.peer.answers[1]) == RIGHT


def test_data_in_many_frames_padded_and_not():
    rig = GrpcRig()
    stream = 1
    body = h2.message(PLAIN)
    wire = rig.peer.headers(stream, h2.call_headers())
    for at in range(0, len(body), 5):
        part = body[at : at + 5]
        padded = h2.frame(h2.DATA, h2.PADDED, stream, bytes((7,)) + part + bytes(7))
        wire += padded if at % 2 else h2.frame(h2.DATA, 0, stream, part)
    rig.send(wire + h2.frame(h2.DATA, h2.END_STREAM, stream))
    assert raw_of(rig.peer.answers[stream]) == RIGHT


def test_headers_with_padding_priority_and_continuation():
    rig = GrpcRig()
    block = rig.peer.encoder.encode(h2.call_headers())
    head = bytes((3,)) + b"\0\0\0\0\x10" + block[:10] + bytes(3)
    wire = h2.frame(h2.HEADERS, h2.PADDED | h2.WITH_PRIORITY, 1, head)
    wire += h2.frame(h2.CONTINUATION, 0, 1, block[10:20]) + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[20:])
    rig.send(wire + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(PLAIN)))
    assert raw_of(rig.peer.answers[1]) == RIGHT


def test_trailers_of_the_client_end_its_message():
    rig = GrpcRig()
    wire = rig.peer.headers(1, h2.call_headers()) + h2.frame(h2.DATA, 0, 1, h2.message(PLAIN))
    rig.send(wire + rig.peer.headers(1, [("x-note", "1")], flags=h2.END_HEADERS | h2.END_STREAM))
    assert raw_of(rig.peer.answers[1]) == RIGHT


def test_the_header_table_may_change_between_calls():
    """The same bytes of a block mean other headers then."""
    rig = GrpcRig()
    peer = rig.peer
    for number in range(40):
        fields = h2.call_headers(x_filler="v" * 100 + str(number)) if number % 3 else h2.call_headers()
        stream, peer.next = peer.next, peer.next + 2
        rig.send(peer.headers(stream, fields) + h2.frame(h2.DATA, h2.END_STREAM, stream, h2.message(PLAIN)))
        assert raw_of(peer.answers[stream]) == RIGHT


def literal(name, value, *, indexed=False):
    return (b"\x40" if indexed else b"\0") + bytes((len(name),)) + name + bytes((len(value),)) + value


def test_one_block_two_meanings():
    """An indexed block is remembered only as long as its table stands."""
    rig = GrpcRig()
    rest = b"\x83\x86" + literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
    live, unknown = (literal(b":path", path, indexed=True) for path in (LIVE.encode(), b"/x.Y/Z"))
    for stream, path in zip((1, 3, 5, 7, 9), (live, b"\xbe", b"\xbe", unknown, b"\xbe"), strict=True):
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, stream, path + rest)
        rig.send(head + h2.frame(h2.DATA, h2.END_STREAM, stream, h2.message(b"")))
    assert [rig.peer.answers[stream].status for stream in (1, 3, 5, 7, 9)] == [0, 0, 0, 12, 12]


# --- windows -------------------------------------------------------------------------------------------------------------


def big():
    return np.arange(50_000, dtype=np.float32).reshape(1, -1)


@pytest.fixture
def mirror():
    return {"m": identity(TensorProto.FLOAT, [None, None])}


@pytest.mark.parametrize("frame", [16_384, 100_000])
def test_a_large_message_both_ways(mirror, frame):
    rig = GrpcRig(mirror)
    rig.send(h2.settings(frame=frame))
    answer = rig.call(request(big()))
    assert raw_of(answer) == big().tobytes()
    assert max(len(each.payload) for each in rig.peer.of(h2.DATA)) == frame


def test_an_answer_waits_for_the_clients_windows(mirror):
    rig = GrpcRig(mirror, window=65_535)
    answer = rig.call(request(big()))
    assert len(answer.data) == 65_535
    rig.send(h2.window_update(1, 100_000))
    assert len(answer.data) == 65_535
    rig.send(h2.window_update(0, 1000))
    assert len(answer.data) == 66_535
    rig.send(h2.window_update(0, 200_000))
    assert len(answer.data) == 165_535
    assert not answer.ended
    rig.send(h2.window_update(1, 200_000))
    assert raw_of(answer) == big().tobytes()
    assert rig.connection.idle


def test_a_client_may_take_its_window_back_and_give_it_again(mirror):
    rig = GrpcRig(mirror, window=65_535)
    answer = rig.call(request(big()))
    rig.send(h2.settings(window=0) + h2.window_update(0, 1 << 20) + h2.window_update(1, 60_000))
    assert len(answer.data) == 65_535
    rig.send(h2.window_update(1, 5536))
    assert len(answer.data) == 65_536
    rig.send(h2.settings(window=1 << 20))
    assert raw_of(answer) == big().tobytes()


def test_answers_share_the_connections_window(mirror):
    rig = GrpcRig(mirror, window=65_535)
    rig.send(h2.settings(window=1 << 20))
    calls = [rig.peer.call(request(big()).SerializeToString()) for _ in range(3)]
    rig.send(b"".join(wire for _, wire in calls))
    rig.send(h2.window_update(0, 150_000))
    assert all(len(rig.peer.answers[stream].data) > 20_000 for stream, _ in calls)
    rig.send(h2.window_update(0, 1 << 20))
    assert [raw_of(rig.peer.answers[stream]) for stream, _ in calls] == [big().tobytes()] * 3


def test_a_small_answer_when_the_window_is_closed():
    rig = GrpcRig(window=0)
    answer = rig.call(PLAIN)
    assert answer.data == b""
    rig.send(h2.window_update(1, 3))
    rig.send(h2.window_update(1, 1000))
    assert raw_of(answer) == RIGHT


def test_nothing_more_is_written_than_the_transport_takes(mirror):
    rig = GrpcRig(mirror)

    def full():
        rig.transport.full = None
        rig.connection.pause_writing()

    rig.transport.full = full
    answer = rig.call(request(big()))
    assert rig.transport.reading_paused
    assert len(answer.data) < 200_000
    rig.connection.resume_writing()
    rig.take()
    assert raw_of(answer) == big().tobytes()


def test_the_server_opens_the_connections_window_again():
    rig = GrpcRig(limits=Limits(body_bytes=10))
    for _ in range(60):
        rig.call(b"", LIVE)
    filler = h2.frame(h2.DATA, 0, 1, bytes(1 << 20))
    rig.connection._streams._reset[1] = None
    for _ in range(600):
        rig.connection.data_received(filler)
    rig.take()
    grown = [each for each in rig.peer.of(h2.WINDOW_UPDATE) if not each.stream]
    assert len(grown) >= 2
    assert rig.gone is None


# --- cancelling ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_call_is_not_answered():
    rig = GrpcRig(cost=1.0, hold=True)
    stream, wire = rig.peer.call(PLAIN)
    rig.send(wire + h2.rst(stream))
    assert not rig.connection.idle
    rig.pool.release()
    assert rig.take() == []
    assert rig.connection.idle
    assert rig.held == 0
    counters = rig.served["m"].counters
    assert (counters.answered, counters.refused, counters.failed) == (0, {"SKY-6023": 1}, {})


@pytest.mark.parametrize("headers", [{}, {"content_length": str(len(PLAIN) + 5)}], ids=["usual", "by the long way"])
def test_a_call_that_is_cancelled_while_it_waits_is_not_run(headers):
    rig = GrpcRig(cost=1.0, hold=True)
    runs = runs_of(rig)
    streams = []
    for _ in range(4):
        stream, wire = rig.peer.call(PLAIN, **headers)
        rig.send(wire)
        streams.append(stream)
    rig.send(h2.rst(streams[1]) + h2.rst(streams[2]))
    while rig.pool.jobs:
        rig.pool.release()
    rig.take()
    assert len(runs) == 2
    assert [stream in rig.peer.answers for stream in streams] == [True, False, False, True]
    assert rig.connection.idle
    assert rig.held == 0


def test_calls_of_a_connection_that_is_lost_are_not_run_and_leave_nothing_behind():
    rig = GrpcRig(cost=1.0, hold=True)
    runs = runs_of(rig)
    for _ in range(3):
        rig.send(rig.peer.call(PLAIN)[1])
    streams = weakref.ref(rig.connection._streams)
    gc.disable()
    try:
        rig.connection.connection_lost(None)
        rig.connection = None
        while rig.pool.jobs:
            rig.pool.release()
        assert streams() is None
    finally:
        gc.enable()
    assert not runs
    assert rig.held == 0


def runs_of(rig):
    """One entry for every run from now on."""
    runs = []
    engine = rig.served["m"].engine

    def run(inputs):
        runs.append(1)
        return engine.run(inputs)

    rig.served["m"].engine = cast("Any", SimpleNamespace(run=run))
    return runs


def test_a_call_cancelled_while_it_arrives_or_is_answered(mirror):
    rig = GrpcRig(mirror, window=1000)
    stream, wire = rig.peer.call(request(big()).SerializeToString())
    rig.send(wire)
    assert not rig.connection.idle
    rig.send(h2.rst(stream))
    assert rig.connection.idle
    rig.send(rig.peer.headers(3, h2.call_headers()) + h2.frame(h2.DATA, 0, 3, b"\0\0\0\1\0abc") + h2.rst(3))
    assert rig.connection.idle
    assert rig.held == 0


def test_frames_that_cross_a_reset_are_no_fault():
    rig = GrpcRig(limits=Limits(body_bytes=100))
    wire = rig.peer.headers(1, h2.call_headers()) + h2.frame(h2.DATA, 0, 1, b"\0\0\0\xff\xff" + bytes(100))
    rig.send(wire)
    assert rig.peer.answers[1].status == GrpcStatus.RESOURCE_EXHAUSTED
    assert rig.peer.answers[1].reset == 0
    for _ in range(3000):
        rig.send(h2.frame(h2.DATA, 0, 1, bytes(1000)))
    rig.send(h2.window_update(1, 5) + h2.rst(1) + rig.peer.headers(1, [("a", "b")], flags=5))
    assert rig.gone is None
    rig.peer.next = 3
    assert rig.call(b"", LIVE).status == 0


# --- time and the end ----------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_told_and_closed():
    rig = GrpcRig()
    rig.call(PLAIN)
    assert rig.connection.deadline == pytest.approx(rig.limits.idle_seconds)
    rig.clock.advance(80)
    rig.connection.expire()
    rig.take()
    assert rig.gone == 0
    assert rig.transport.eof
    rig.clock.advance(3)
    assert rig.connection.deadline < rig.now()
    rig.connection.expire()
    assert rig.transport.aborted


def test_a_message_that_takes_too_long_to_arrive():
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, h2.call_headers()) + h2.frame(h2.DATA, 0, 1, b"\0\0"))
    rig.clock.advance(61)
    assert rig.connection.deadline < rig.now()
    rig.connection.expire()
    rig.take()
    assert rig.peer.answers[1].status == GrpcStatus.DEADLINE_EXCEEDED
    assert rig.gone is None


def test_a_call_that_is_computed_does_not_expire():
    rig = GrpcRig(cost=1.0, hold=True)
    rig.call(PLAIN)
    assert rig.connection.deadline == float("inf")


def test_draining_answers_what_was_sent_before_the_client_knew():
    rig = GrpcRig(cost=1.0, hold=True)
    rig.call(PLAIN)
    rig.connection.drain()
    frames = rig.take()
    assert [(each.kind, each.code) for each in frames if each.kind == h2.GOAWAY] == [(h2.GOAWAY, 0)]
    assert int.from_bytes(frames[0].payload[:4]) == (1 << 31) - 1
    [ping] = [each for each in frames if each.kind == h2.PING]
    rig.call(PLAIN)  # had not heard yet
    rig.send(h2.frame(h2.PING, h2.ACK, 0, ping.payload))
    assert int.from_bytes(rig.peer.of(h2.GOAWAY)[-1].payload[:4]) == 3
    late, wire = rig.peer.call(PLAIN)
    rig.send(wire)
    assert rig.peer.answers[late].reset == 7
    assert not rig.transport.eof
    while rig.pool.jobs:
        rig.pool.release()
    rig.take()
    assert [raw_of(rig.peer.answers[stream]) for stream in (1, 3)] == [RIGHT, RIGHT]
    assert rig.transport.eof


def test_draining_an_idle_connection_ends_when_the_client_knows():
    rig = GrpcRig()
    rig.connection.drain()
    rig.connection.drain()
    assert not rig.transport.eof
    rig.take()
    rig.send(h2.frame(h2.PING, h2.ACK, 0, rig.peer.of(h2.PING)[0].payload))
    assert rig.transport.eof
    assert len(rig.peer.of(h2.GOAWAY)) == 2


def test_closing_says_up_to_where_calls_were_seen():
    rig = GrpcRig()
    rig.call(PLAIN)
    rig.connection.close()
    rig.take()
    assert rig.gone == 0
    assert int.from_bytes(rig.peer.of(h2.GOAWAY)[-1].payload[:4]) == 1
    assert rig.transport.closed


def test_too_many_connections():
    rig = GrpcRig(limits=Limits(connections=1))
    connection = rig.connection
    rig.connect()
    assert rig.gone == 7
    assert rig.transport.eof
    del connection


def test_a_client_that_goes_while_its_call_is_computed():
    rig = GrpcRig(cost=1.0, hold=True)
    rig.call(PLAIN)
    assert rig.held > 0
    rig.connection.connection_lost(None)
    assert rig.held == 0
    assert rig.open == 0
    rig.pool.release()
    assert rig.held == 0
    assert rig.take() == []


def test_an_ended_connection_leaves_nothing_for_the_garbage_collector():
    rig = GrpcRig()
    rig.call(PLAIN)
    connection = weakref.ref(rig.connection)
    gc.disable()
    try:
        rig.connection.connection_lost(None)
        rig.connection = None
        assert connection() is None
    finally:
        gc.enable()


def test_eof_of_the_client():
    rig = GrpcRig(cost=1.0, hold=True)
    rig.call(PLAIN)
    assert rig.connection.eof_received()
    rig.pool.release()
    rig.take()
    assert raw_of(rig.peer.answers[1]) == RIGHT
    assert not GrpcRig().connection.eof_received()


# --- not gRPC ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": None}, "415"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": "application/grpc+json"}, "415"),
        ({"content-type": "application/grpc-web"}, "415"),
    ],
)
def test_requests_of_http_2_that_are_no_grpc_get_an_http_status(fields, status):
    rig = GrpcRig()
    wire = rig.peer.headers(1, h2.call_headers(**fields), flags=h2.END_HEADERS | h2.END_STREAM)
    rig.send(wire)
    answer = rig.peer.answers[1]
    assert answer.headers[":status"] == status
    assert b"gRPC" in answer.data
    assert len(answer.data) == int(answer.headers["content-length"])


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_content_types_of_grpc(kind):
    assert GrpcRig().call(b"", LIVE, content_type=kind).status == 0


def test_without_te_there_may_be_a_proxy_that_drops_trailers():
    answer = GrpcRig().call(b"", LIVE, te=None)
    assert answer.status == GrpcStatus.INTERNAL
    assert "te" in answer.text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cut short"),
        (b"\0\0\0", "cut short"),
        (b"\0\0\0\0\5abc", "cut short"),
        (b"\7\0\0\0\0", "flags"),
        (b"\0\0\0\0\0\0", "more than one"),
        (h2.message(PLAIN) * 2, "more than one"),
    ],
)
def test_bodies_that_are_not_one_message(body, reason):
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, h2.call_headers()) + h2.frame(h2.DATA, h2.END_STREAM, 1, body))
    assert rig.peer.answers[1].status == GrpcStatus.INVALID_ARGUMENT
    assert reason in rig.peer.answers[1].text
    assert rig.gone is None


def test_a_call_without_a_message():
    rig = GrpcRig()
    rig.send(rig.peer.headers(1, h2.call_headers(), flags=h2.END_HEADERS | h2.END_STREAM))
    assert rig.peer.answers[1].status == GrpcStatus.INVALID_ARGUMENT
    assert rig.peer.answers[1].ended


# --- what came together ---------------------------------------------------------------------------------------------------


def in_turns(rig):
    """What the model's lane wants to do at the end of the turn, with a runner's idea of being alone."""
    turns: list[Any] = []
    turn = Turn(now=rig.clock.monotonic, soon=turns.append, alone=lambda: rig.open == 1 and not rig.several)
    placement = place(Costs(one=30e-6, per_row=7e-6, why_not=""))
    rig.desk.lanes["m"] = InlineLane(rig.served["m"], placement, turn, rig.desk._settle, limit=1024)
    return turns


@pytest.mark.parametrize("headers", [{}, {"content_length": str(len(PLAIN) + 5)}], ids=["usual", "by the long way"])
def test_calls_of_one_connection_that_came_together_share_a_run(headers):
    rig = GrpcRig()
    turns = in_turns(rig)
    runs = runs_of(rig)
    for _ in range(2):  # the second time the headers are known
        calls = [rig.peer.call(PLAIN, **headers) for _ in range(8)]
        rig.send(b"".join(wire for _, wire in calls))
        assert not any(stream in rig.peer.answers for stream, _ in calls)
        [flush] = turns
        turns.clear()
        flush()
        rig.take()
        assert [raw_of(rig.peer.answers[stream]) for stream, _ in calls] == [RIGHT] * 8
        assert runs == [1]
        runs.clear()


def test_a_call_that_came_alone_does_not_wait_for_the_end_of_the_turn():
    rig = GrpcRig()
    turns = in_turns(rig)
    for _ in range(2):  # until its headers are in the table, and known from there
        rig.call(PLAIN)
        turns.pop()()
    for _ in range(3):
        assert raw_of(rig.call(PLAIN)) == RIGHT
    assert not turns
