# SPDX-License-Identifier: Apache-2.0
import gc
import gzip
import json
import tracemalloc
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

from skerry.serve.http.receiving import Limits
from unit.serve.rig import Rig, post

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode()
INFER = post("/v2/models/m/infer", BODY)


def statuses(answers):
    return [answer.status for answer in answers]


@pytest.mark.parametrize("data", [LIVE, INFER])
def test_a_request_may_arrive_byte_by_byte(data):
    rig = Rig()
    answers = [answer for at in range(len(data)) for answer in rig.send(data[at : at + 1])]
    assert statuses(answers) == [200]
    assert not rig.transport.eof


def test_keep_alive_is_the_default_and_close_is_obeyed():
    rig = Rig()
    assert "connection" not in rig.send(LIVE)[0].headers
    [answer] = rig.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.headers["connection"] == "close"
    assert rig.transport.eof
    assert rig.send(LIVE) == []


def test_http_1_0_closes_unless_asked_otherwise():
    rig = Rig()
    [answer] = rig.send(b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.headers["connection"] == "keep-alive"
    [answer] = rig.send(b"GET /v2 HTTP/1.0\r\n\r\n")
    assert answer.headers["connection"] == "close"


def test_a_pipeline_is_answered_in_order_even_when_the_first_is_slow():
    rig = Rig(cost=1.0, hold=True)
    assert rig.send(INFER + LIVE + LIVE) == []
    assert rig.transport.reading_paused
    rig.pool.release()
    answers = rig.take()
    assert statuses(answers) == [200, 200, 200]
    assert "outputs" in answers[0].json
    assert not rig.transport.reading_paused


def test_a_fault_in_a_pipeline_comes_after_the_answers_before_it():
    rig = Rig(cost=1.0, hold=True)
    assert rig.send(INFER + LIVE + b"RUBBISH\r\n\r\n") == []
    rig.pool.release()
    answers = rig.take()
    assert statuses(answers) == [200, 200, 400]
    assert answers[2].headers["connection"] == "close"


def test_chunked_bodies():
    rig = Rig()
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:]))
    assert statuses(rig.send(head + chunks + b"0\r\nX-Trailer: 1\r\n\r\n" + LIVE)) == [200, 200]


def test_expect_100_continue():
    rig = Rig()
    head, _, body = INFER.partition(b"\r\n\r\n")
    assert statuses(rig.send(head + b"\r\nExpect: 100-continue\r\n\r\n")) == [100]
    assert statuses(rig.send(body)) == [200]


def test_a_client_that_does_not_wait_for_100_gets_none():
    rig = Rig()
    head, _, body = INFER.partition(b"\r\n\r\n")
    assert statuses(rig.send(head + b"\r\nExpect: 100-continue\r\n\r\n" + body)) == [200]


def test_100_comes_after_the_answer_before_it():
    rig = Rig(cost=1.0, hold=True)
    head, _, _ = INFER.partition(b"\r\n\r\n")
    assert rig.send(INFER + head + b"\r\nExpect: 100-continue\r\n\r\n") == []
    rig.pool.release()
    assert statuses(rig.take()) == [200, 100]


CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "filler"),
    [(b"0\r\nX: ", b"a" * 500), (b"0\r\n", b"X: a\r\n" * 80), (b"2;", b"a" * 500)],
    ids=["trailer", "trailers", "extension"],
)
def test_what_is_neither_head_nor_body_has_an_end(start, filler):
    rig = Rig(limits=Limits(head_bytes=2000))
    answers = rig.send(CHUNKED + b"2\r\n{}\r\n" + start)
    for _ in range(10):
        answers += rig.send(filler)
    assert statuses(answers) == [431]
    assert rig.transport.eof


def test_a_body_in_tiny_chunks_costs_memory_only_once():
    rig = Rig(limits=Limits(body_bytes=4_000_000))
    rig.send(CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(50):
            rig.send(b"2\r\nab\r\n" * 10_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4_000_000
    [answer] = rig.send(b"0\r\n\r\n")
    assert answer.status == 400


def test_bodies_of_all_connections_together_are_bounded_but_small_ones_still_pass():
    rig = Rig(limits=Limits(held_bytes=1000, small_body=200))
    rig.send(CHUNKED + b"384\r\n" + b"x" * 900 + b"\r\n")
    first = rig.connection
    rig.connect()
    assert rig.send(CHUNKED + b"c8\r\n" + b"x" * 200 + b"\r\n") == []
    [answer] = rig.send(b"1\r\nx\r\n")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    rig.connect()
    assert statuses(rig.send(INFER)) == [200]
    first.connection_lost(None)
    rig.connect()
    assert rig.send(CHUNKED + b"12c\r\n" + b"x" * 300 + b"\r\n") == []


@pytest.mark.parametrize(
    "data",
    [
        INFER,
        INFER * 3,
        CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\nZ",
        INFER[:-1],
        INFER + b"RUBBISH\r\n\r\n",
    ],
)
@pytest.mark.parametrize("hold", [True, False])
def test_no_bytes_stay_on_the_books(data, hold):
    rig = Rig(cost=1.0, hold=hold)
    rig.send(data)
    assert not hold or rig.held or data.startswith(CHUNKED)  # what cannot be read is not held
    rig.connection.connection_lost(None)
    rig.pool.release()
    assert rig.held == 0


def test_a_connection_that_has_gone_leaves_at_once():
    rig = Rig()
    gone = weakref.ref(rig.connection)
    rig.send(INFER[:-1])
    rig.connection.connection_lost(None)
    gc.disable()
    try:
        rig.connect()
        assert gone() is None
    finally:
        gc.enable()


class Starved(Rig):
    """There is no memory for a body."""

    held = property(lambda self: 0, lambda self, size: self.take_memory(size))

    @staticmethod
    def take_memory(size):
        if size > 0:
            raise MemoryError


def test_a_lack_of_memory_is_not_the_clients_fault():
    [answer] = Starved().send(INFER)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("body", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_connect_is_refused(body):
    rig = Rig()
    [answer] = rig.send(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n" + body + b"\r\nhello")
    assert answer.status == 400
    assert rig.transport.eof


def test_other_expectations_are_not_met():
    rig = Rig()
    assert statuses(rig.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n")) == [417]


def test_a_body_too_large_is_refused_before_it_is_sent():
    rig = Rig(limits=Limits(body_bytes=100))
    [answer] = rig.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n")
    assert answer.status == 413
    assert rig.transport.eof


def test_a_chunked_body_is_counted_as_it_grows():
    rig = Rig(limits=Limits(body_bytes=100))
    rig.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert rig.send(b"40\r\n" + b"x" * 64 + b"\r\n") == []
    assert statuses(rig.send(b"40\r\n" + b"x" * 64 + b"\r\n")) == [413]
    assert rig.send(b"40\r\n" + b"x" * 64 + b"\r\n") == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 3000,
        b"GET /" + b"a" * 3000,
        b"GET /v2 HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 600,
    ],
)
def test_a_head_without_end_is_cut_off(head):
    rig = Rig(limits=Limits(head_bytes=2000, headers=10_000))
    answers = [answer for at in range(0, len(head), 500) for answer in rig.send(head[at : at + 500])]
    assert statuses(answers) == [431]
    assert rig.transport.eof


def test_too_many_headers():
    rig = Rig(limits=Limits(headers=5))
    assert statuses(rig.send(b"GET /v2 HTTP/1.1\r\n" + b"X: a\r\n" * 6 + b"\r\n")) == [431]


def test_a_long_pipeline_is_no_long_head():
    rig = Rig(limits=Limits(head_bytes=200))
    assert statuses(rig.send(LIVE * 20 + LIVE[:10])) == [200] * 20
    assert statuses(rig.send(LIVE[10:])) == [200]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v2 HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_as_json_and_closed(data):
    rig = Rig()
    [answer] = rig.send(data)
    assert answer.status == 400
    assert list(answer.json) == ["error", "code"]
    assert rig.transport.eof


def test_an_upgrade_is_ignored_and_the_request_answered():
    rig = Rig()
    data = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert statuses(rig.send(data)) == [200]
    assert statuses(rig.send(LIVE)) == [200]
    head, _, body = INFER.partition(b"\r\n\r\n")
    upgrade = head + b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + body
    assert statuses(rig.send(upgrade + LIVE)) == [200, 200]


def test_the_connection_above_the_limit_is_told_so():
    rig = Rig(limits=Limits(connections=1))
    rig.connect()
    [answer] = rig.take()
    assert (answer.status, answer.json) == (503, {"error": "too many connections", "code": "SKY-6016"})
    assert rig.transport.eof


# --- deadlines -----------------------------------------------------------------------------------------------------------


def expired(rig, seconds):
    """Let time pass as the server's sweep would see it."""
    rig.clock.advance(seconds)
    if rig.connection.deadline < rig.now():
        rig.connection.expire()
        return True
    return False


def test_an_idle_connection_is_closed_quietly():
    rig = Rig(limits=Limits(idle_seconds=10))
    assert not expired(rig, 9)
    assert statuses(rig.send(LIVE)) == [200]
    assert not expired(rig, 9)
    assert expired(rig, 2)
    assert rig.transport.closed
    assert rig.take() == []


def test_a_request_that_trickles_in_gets_408():
    rig = Rig(limits=Limits(request_seconds=10))
    rig.send(INFER[:20])
    assert not expired(rig, 6)
    rig.send(INFER[20:40])
    assert expired(rig, 6)
    assert statuses(rig.take()) == [408]
    assert expired(rig, 3)
    assert rig.transport.aborted


def test_blank_lines_do_not_keep_a_connection():
    rig = Rig(limits=Limits(idle_seconds=10))
    for _ in range(5):
        rig.send(b"\r\n")
        rig.clock.advance(3)
    assert expired(rig, 0)


def test_the_model_may_take_its_time():
    rig = Rig(cost=1.0, hold=True)
    rig.send(INFER)
    assert not expired(rig, 10_000)
    rig.pool.release()
    assert statuses(rig.take()) == [200]
    assert not expired(rig, 60)


def test_a_client_that_does_not_read_is_cut_off_and_not_answered_meanwhile():
    rig = Rig(limits=Limits(write_seconds=10))
    rig.connection.pause_writing()
    assert rig.send(LIVE + LIVE) == []
    rig.connection.resume_writing()
    assert statuses(rig.take()) == [200, 200]
    rig.connection.pause_writing()
    assert expired(rig, 11)
    assert rig.transport.aborted


def test_an_answer_that_is_not_taken_is_given_up_in_time():
    """The transport says that it is full while the answer is being written."""
    rig = Rig(limits=Limits(write_seconds=10, idle_seconds=1000))
    rig.transport.full = rig.connection.pause_writing
    assert statuses(rig.send(LIVE)) == [200]
    assert not expired(rig, 9)
    assert expired(rig, 2)
    assert rig.transport.aborted


def test_an_answer_that_is_taken_slowly_is_not_given_up():
    rig = Rig(limits=Limits(write_seconds=10))
    rig.transport.buffered = 500
    rig.connection.pause_writing()
    for left in (400, 300, 200):
        rig.transport.buffered = left
        assert expired(rig, 11)
        assert not rig.transport.aborted
    assert expired(rig, 11)
    assert rig.transport.aborted


def test_a_large_last_answer_gets_time_to_leave():
    rig = Rig(limits=Limits(write_seconds=10))
    rig.transport.buffered = 5
    rig.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert not expired(rig, 9)
    assert expired(rig, 2)


# --- ends ----------------------------------------------------------------------------------------------------------------


def test_a_client_that_half_closes_still_gets_its_answer():
    rig = Rig(cost=1.0, hold=True)
    rig.send(INFER)
    assert rig.connection.eof_received() is True
    rig.pool.release()
    [answer] = rig.take()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_eof_without_anything_due_closes():
    assert Rig().connection.eof_received() is False


def test_an_answer_to_a_client_that_has_gone_is_thrown_away():
    rig = Rig(cost=1.0, hold=True)
    rig.send(INFER)
    rig.connection.connection_lost(None)
    rig.pool.release()
    assert rig.take() == []
    assert rig.open == 0


def test_draining_closes_with_the_next_answer():
    rig = Rig()
    rig.connection.drain()
    assert rig.connection.idle
    [answer] = rig.send(LIVE)
    assert answer.headers["connection"] == "close"
    assert rig.transport.eof


def test_draining_answers_a_whole_pipeline():
    rig = Rig(cost=1.0, hold=True)
    rig.send(INFER + LIVE)
    rig.connection.drain()
    assert not rig.connection.idle
    rig.pool.release()
    answers = rig.take()
    assert [answer.headers.get("connection") for answer in answers] == [None, "close"]


# --- a client that has gone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Content_Encoding": "gzip"}], ids=["queued", "to be read"])
def test_the_request_of_a_client_that_has_gone_is_not_run(headers):
    rig = Rig(cost=1.0, hold=True)
    ran = []
    engine = rig.served["m"].engine

    def run(inputs):
        ran.append(1)
        return engine.run(inputs)

    rig.served["m"].engine = cast("Any", SimpleNamespace(run=run))
    body = gzip.compress(BODY) if headers else BODY
    first = rig.connection
    rig.send(post("/v2/models/m/infer", body, **headers))
    rig.connect()
    rig.send(post("/v2/models/m/infer", body, **headers))
    first.connection_lost(ConnectionResetError())
    while rig.pool.jobs:
        rig.pool.release()
    assert statuses(rig.take()) == [200]
    assert ran == [1]
    counters = rig.served["m"].counters
    assert (counters.answered, counters.refused, counters.failed) == (1, {"SKY-6023": 1}, {})
    assert rig.held == 0


def test_a_lost_connection_leaves_nothing_for_the_garbage_collector_while_its_request_waits():
    rig = Rig(cost=1.0, hold=True)
    rig.send(INFER)
    connection = weakref.ref(rig.connection)
    gc.disable()
    try:
        rig.connection.connection_lost(None)
        del rig.connection
        assert connection() is not None  # the request has it
        rig.pool.release()
        assert connection() is None
    finally:
        gc.enable()
