# SPDX-License-Identifier: Apache-2.0
"""Bytes on a socket that two readers could take for different requests, and clients that mean no good: over real sockets.

A proxy in front of a runner must never see one request where the runner sees two. So whatever RFC 9112 leaves room for is
refused and the connection closed; nothing behind it is taken for a request.
"""

import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine_answer, classifier
from support.raw_http import RawHttp, request

pytestmark = pytest.mark.slow

X = np.array([[1, 2, 3, 4]], np.float32)
HOST = b"Host: h\r\n"
POST = b"POST /v2/models/digits/infer HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /v2 HTTP/1.1\r\n"
HIDDEN = b"GET /v2/models/HIDDEN HTTP/1.1\r\nHost: h\r\n\r\n"
"""What a smuggler would have us answer; its name shows up in the answer."""

LIVE = request("/v2/health/live", method="GET")
MALFORMED, VERSION, CODING = "SKY-6013", "SKY-6018", "SKY-6019"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"), classifier(), {"x": X})


@pytest.fixture(scope="module")
def runner(bundle):
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        yield runner.serve()


@pytest.fixture
def address(runner):
    return runner.listener.getsockname()


def infer(identifier="", value=1.0):
    text = '{"id":"%s","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%f,2,3,4]}]}'
    return request("/v2/models/digits/infer", (text % (identifier, value)).encode())


AMBIGUOUS = {
    # --- two lengths
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, MALFORMED),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, MALFORMED),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", 400, MALFORMED),
    "two equal lengths": (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, MALFORMED),
    "a list of lengths": (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400, MALFORMED),
    "length with a sign": (POST + b"Content-Length: +2\r\n\r\n{}", 400, MALFORMED),
    "length negative": (POST + b"Content-Length: -2\r\n\r\n{}", 400, MALFORMED),
    "length in hexadecimal": (POST + b"Content-Length: 0x2\r\n\r\n{}", 400, MALFORMED),
    "length empty": (POST + b"Content-Length:\r\n\r\n{}", 400, MALFORMED),
    "length in two words": (POST + b"Content-Length: 1 2\r\n\r\n{}", 400, MALFORMED),
    "length that overflows to 2": (POST + b"Content-Length: 18446744073709551618\r\n\r\n{}", 400, MALFORMED),
    "length in a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 50\r\n\r\n", 400, MALFORMED),
    # --- transfer codings
    "coding identity": (POST + b"Transfer-Encoding: identity\r\n\r\n{}", 501, CODING),
    "coding gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n{}", 501, CODING),
    "gzip, then chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501, CODING),
    "chunked not last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, MALFORMED),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, MALFORMED),
    "chunked, and another": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        400,
        MALFORMED,
    ),
    "nearly chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, CODING),
    "chunked in quotes": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501, CODING),
    "chunked behind a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, MALFORMED),
    "blank before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, MALFORMED),
    "chunks in HTTP/1.0": (
        b"POST /v2/models/digits/infer HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        MALFORMED,
    ),
    # --- chunks
    "chunk size that overflows to 2": (CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "chunk size negative": (CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "chunk size with 0x": (CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "blank before a chunk size": (CHUNKED + b" 2\r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "blank behind a chunk size": (CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "no chunk size": (CHUNKED + b"\r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "chunk longer than its size": (CHUNKED + b"2\r\n{}}0\r\n\r\n", 400, MALFORMED),
    "chunk without its end": (CHUNKED + b"2\r\n{}0\r\n\r\n", 400, MALFORMED),
    "chunk size ended by a bare LF": (CHUNKED + b"2\n{}\n0\n\n", 400, MALFORMED),
    "chunk extension ended by a bare LF": (CHUNKED + b"2;a\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    "chunk extension with NUL": (CHUNKED + b"2;a=\0\r\n{}\r\n0\r\n\r\n", 400, MALFORMED),
    # --- lines
    "bare LF": (b"GET /v2 HTTP/1.1\nHost: h\n\n", 400, MALFORMED),
    "bare LF behind a field": (GET + b"Host: h\nX: y\r\n\r\n", 400, MALFORMED),
    "bare CR behind a field": (GET + b"Host: h\rX: y\r\n\r\n", 400, MALFORMED),
    "NUL in a field": (GET + HOST + b"X: a\0b\r\n\r\n", 400, MALFORMED),
    "folded field": (GET + HOST + b"X: a\r\n b\r\n\r\n", 400, MALFORMED),
    "folded first field": (GET + b" Host: h\r\n\r\n", 400, MALFORMED),
    "field without a name": (GET + HOST + b": x\r\n\r\n", 400, MALFORMED),
    "field without a colon": (GET + HOST + b"X\r\n\r\n", 400, MALFORMED),
    "blank before a colon": (GET + HOST + b"X : y\r\n\r\n", 400, MALFORMED),
    "name that is not ASCII": (GET + HOST + b"X\xff: y\r\n\r\n", 400, MALFORMED),
    # --- first line
    "HTTP/0.9": (b"GET /v2\r\n\r\n", 400, MALFORMED),
    "HTTP/1.2": (b"GET /v2 HTTP/1.2\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "HTTP/2.0 in words": (b"GET /v2 HTTP/2.0\r\nHost: h\r\n\r\n", 505, VERSION),
    "HTTP/11.1": (b"GET /v2 HTTP/11.1\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "method in lower case": (b"get /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "method nobody knows": (b"FROB /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "tabs for blanks": (b"GET\t/v2\tHTTP/1.1\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "blank behind the version": (b"GET /v2 HTTP/1.1 \r\nHost: h\r\n\r\n", 400, MALFORMED),
    "NUL in the target": (b"GET /v2/models/a\0b HTTP/1.1\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "target that is not ASCII": (b"GET /v2/models/\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400, MALFORMED),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, MALFORMED),
    "a proxy's greeting": (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", 400, MALFORMED),
    # --- host
    "no Host": (GET + b"\r\n", 400, MALFORMED),
    "two Hosts": (GET + b"Host: a\r\nHost: b\r\n\r\n", 400, MALFORMED),
    "two equal Hosts": (GET + b"Host: a\r\nHost: a\r\n\r\n", 400, MALFORMED),
    "Host that is a path": (GET + b"Host: a/b\r\n\r\n", 400, MALFORMED),
    "Host with a user": (GET + b"Host: me@a\r\n\r\n", 400, MALFORMED),
    "Host of two words": (GET + b"Host: a b\r\n\r\n", 400, MALFORMED),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_read_in_none(address, case):
    data, status, code = AMBIGUOUS[case]
    with RawHttp(address) as client:
        answer = client.ask(data + HIDDEN + LIVE)
        assert (answer.status, answer.json["code"]) == (status, code), answer.body
        assert answer.closes
        assert b"HIDDEN" not in answer.body
        assert client.ended()


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_it_is_so_byte_by_byte_too_and_behind_a_good_request(address, case):
    data, status, code = AMBIGUOUS[case]
    with RawHttp(address) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert client.ask(LIVE).status == 200
        for at in range(len(data)):
            try:
                client.send(data[at : at + 1])
            except (BrokenPipeError, ConnectionResetError):
                break
        answer = client.ask(HIDDEN)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert client.ended()


PLAIN = {
    "chunk extension": (CHUNKED + b'2;a=b;c="d"\r\n{}\r\n0\r\n\r\n', 400),
    "chunk size with many zeros": (CHUNKED + b"0" * 40 + b"2\r\n{}\r\n0\r\n\r\n", 400),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nX-A: b\r\nHost: other\r\n\r\n", 400),
    "CHUNKED": (POST + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
    "GET with a body": (GET + HOST + b"Content-Length: 2\r\n\r\n{}", 200),
    "a body nobody asked for": (b"GET /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + b"x" * 40, 404),
    "blank lines before": (b"\r\n\r\n" + GET + HOST + b"\r\n", 200),
    "absolute target": (b"GET http://other:81/v2?q HTTP/1.1\r\nHost: h\r\n\r\n", 200),
    "absolute target without a path": (b"GET http://other HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "method of another protocol": (b"PURGE /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    "empty Host": (GET + b"Host:\r\n\r\n", 200),
    "Host with a port": (GET + b"Host: [::1]:9000\r\n\r\n", 200),
    "length named in Connection": (POST + b"Connection: Content-Length\r\nContent-Length: 2\r\n\r\n{}", 400),
    "upgrade to h2c": (
        POST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nContent-Length: 2\r\n\r\n{}",
        400,
    ),
    "encoded NUL": (b"GET /v2/models/a%00b HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "encoded slash": (b"GET /v2%2fhealth%2flive HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "encoded line end": (b"GET /v2/models/a%0d%0aX:%20y HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "no percent number": (b"GET /v2/models/a%zz HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "upwards": (b"GET /v2/../metrics HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "two slashes": (b"GET //v2 HTTP/1.1\r\nHost: h\r\n\r\n", 404),
}


@pytest.mark.parametrize("case", PLAIN)
def test_what_is_one_request_is_one_answer_and_the_next_is_the_next(address, case):
    data, status = PLAIN[case]
    with RawHttp(address) as client:
        answer = client.ask(data + HIDDEN + LIVE)
        assert answer.status == status, answer.body
        assert b"HIDDEN" not in answer.body
        assert b"HIDDEN" in client.next().body
        assert client.next().json == {"live": True}


def test_a_length_of_nothing_hides_no_request(address):
    """Half a request, then its rest much later in another piece: the rest is a body, not a request."""
    body = b'{"inputs":[]}' + b" " * 100
    inside = HIDDEN.ljust(len(body))[: len(body)]
    head = POST + b"Content-Length: %d\r\n\r\n" % len(inside)
    with RawHttp(address) as client:
        for _ in range(3):  # the second time the head is remembered
            client.send(head)
            client.send(inside)
            answer = client.next()
            assert (answer.status, answer.json["code"]) == (400, "SKY-6001")
        client.send(head + inside)
        client.send(head + inside + LIVE)
        assert [client.next().status for _ in range(3)] == [400, 400, 200]


# --- heads that are remembered --------------------------------------------------------------------------------------------


def test_what_one_client_sends_changes_nothing_for_the_next(address):
    """A head seen before is not parsed again: whatever came with it, it means the same for everyone."""
    body = infer("mine").partition(b"\r\n\r\n")[2]
    head = infer("mine").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    closing = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for _ in range(3):
        with RawHttp(address) as one, RawHttp(address) as other:
            assert one.ask(head + body).json["id"] == "mine"
            other.send(head + body[:10])
            assert one.ask(head + body.replace(b"mine", b"your")).json["id"] == "your"
            assert other.ask(body[10:]).json["id"] == "mine"
            assert one.ask(closing + body).closes
            assert one.ended()
            assert not other.ask(head + body + LIVE).closes
            assert other.next().json == {"live": True}
            assert other.ask(head + body[:-1] + b"\r").status == 400
            assert other.ask(head + body).status == 200


# --- floods ---------------------------------------------------------------------------------------------------------------


def test_a_thousand_requests_in_one_write_are_a_thousand_answers_in_order(address):
    count = 1000
    with RawHttp(address, seconds=40) as client:
        sender = threading.Thread(target=client.send, args=(b"".join(infer(str(n), n) for n in range(count)),))
        sender.start()
        for n in range(count):
            answer = client.next()
            assert answer.json["id"] == str(n)
            assert answer.json["outputs"][0]["data"] == affine_answer([[n, 2, 3, 4]])[0].tolist()
        sender.join()


def test_a_client_that_closes_its_side_gets_what_it_asked_for(address):
    with RawHttp(address) as client:
        client.send(infer("1") + infer("2") + infer("3"))
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.next().json["id"] for _ in range(3)] == ["1", "2", "3"]
        assert client.ended()


HEADS = {
    "one line without end": b"GET /" + b"a" * 700_000,
    "a very long name": b"GET /v2 HTTP/1.1\r\nHost: h\r\n" + b"X" * 700_000,
    "a very long value": b"GET /v2 HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 700_000,
    "very many fields": b"GET /v2 HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 120_000,
    "many fields": b"GET /v2 HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 101 + b"\r\n",
    "chunk extensions without end": CHUNKED + b"2;" + b"a" * 700_000,
    "trailers without end": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: a\r\n" * 120_000,
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_has_an_end(address, case):
    with RawHttp(address) as client:
        answer = client.ask(HEADS[case])
        assert (answer.status, answer.json["code"]) == (431, "SKY-6014")
        assert client.ended()


CONNECTIONS = 512
"""As many as a runner has at a time."""


@contextmanager
def crowd(address, beginning):
    """All the connections there are, each with the beginning of a request on it."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(RawHttp(address)).send(beginning)
        yield


@pytest.mark.parametrize(
    "beginning", [b"", LIVE, LIVE[:-3], b"\r\n"], ids=["nothing", "one request", "a head", "a line"]
)
def test_silent_clients_keep_nobody_out(address, beginning):
    """The limit is reached; whoever has been of no use for longest makes room."""
    with crowd(address, beginning):
        end = time.monotonic() + 20
        answered = 0
        while answered < 50:
            assert time.monotonic() < end, f"{answered} answered"
            with RawHttp(address) as client:
                answered += client.ask(infer()).status == 200


def test_a_client_that_works_is_not_put_out_by_silent_ones(address):
    with RawHttp(address) as worker:
        assert worker.ask(infer()).status == 200
        with crowd(address, b""), crowd(address, b""):
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert worker.ask(infer()).status == 200


def test_a_runner_out_of_file_descriptors_serves_on(bundle):
    """Who has a connection keeps it, who comes waits in the queue, and is served when somebody leaves."""
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        address = runner.serve().listener.getsockname()
        with RawHttp(address) as early:
            assert early.ask(LIVE).status == 200
            open_now = len(list(Path(f"/proc/{runner.pid}/fd").iterdir()))
            resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (open_now + 8, open_now + 8))
            with ExitStack() as stack:
                crowd = [stack.enter_context(RawHttp(address)) for _ in range(40)]
                for client in crowd:
                    client.send(infer())
                assert early.ask(infer()).status == 200
                assert crowd[0].next().status == 200
                for client in crowd[:20]:
                    client.close()
                assert crowd[20].next().status == 200
            with RawHttp(address) as late:
                assert late.ask(infer()).status == 200
        assert runner.process.poll() is None


def test_random_bytes_end_no_server(address, runner):
    drawn = np.random.default_rng(11)
    for _ in range(200):
        with RawHttp(address) as client:
            client.send(drawn.bytes(int(drawn.integers(1, 3000))))
            client.socket.shutdown(socket.SHUT_WR)
            answer = client.answer()
            assert answer is None or answer.status in {400, 431, 505}
    with RawHttp(address) as client:
        assert client.ask(infer()).status == 200
    assert runner.process.poll() is None
