# SPDX-License-Identifier: Apache-2.0
"""The real HTTP client against a server that is only bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from skerry.effects.http import UrllibHttp
from skerry.errors import DownloadBroken, HubUnreachable, InsecureTransport, RoadError, TooMuchData

Serve = Callable[[Iterator[bytes]], str]


@pytest.fixture
def serve():
    """Answers one request with these bytes, in these pieces; the URL to ask."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(pieces: Iterator[bytes]) -> str:
        def answer() -> None:
            with listening.accept()[0] as peer, contextlib.suppress(OSError):
                peer.recv(65_536)
                for piece in pieces:
                    peer.sendall(piece)

        threads.append(threading.Thread(target=answer, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/x"

    yield start
    listening.close()
    for thread in threads:
        thread.join(5)


def ask(url: str, *, limit: int = 1_000, body_seconds: float = 300.0) -> bytes:
    with UrllibHttp(body_seconds=body_seconds).request("GET", url, timeout=5.0) as reply:
        return reply.body(limit=limit)


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


def test_body_of_known_length_and_body_in_chunks(serve):
    assert ask(serve(iter([HEAD + b"Content-Length: 5\r\n\r\nhe", b"llo"]))) == b"hello"
    assert (
        ask(serve(iter([HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nl", b"lo\r\n0\r\n\r\n"])))
        == b"hello"
    )
    assert ask(serve(iter([HEAD + b"\r\nto the end"]))) == b"to the end"
    assert ask(serve(iter([HEAD + b"Content-Length: 0\r\n\r\n"]))) == b""


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_body_that_breaks_off(serve, head):
    with pytest.raises(DownloadBroken):
        ask(serve(iter([HEAD + head + b"\r\n64\r\nabc"])))


@pytest.mark.parametrize("length", [b"", b"Content-Length: 999999999999\r\n"])
def test_body_without_end_is_given_up_at_the_limit(serve, length):
    def endless() -> Iterator[bytes]:
        yield HEAD + length + b"\r\n"
        while True:
            yield b" " * 65_536

    with pytest.raises(TooMuchData):
        ask(serve(endless()), limit=1 << 20)


@pytest.mark.parametrize("length", [b"", b"Content-Length: 100000\r\n"])
def test_body_that_drips_is_given_up_in_time(serve, length):
    """Every byte comes well before the read timeout."""
    pause = threading.Event()

    def drip() -> Iterator[bytes]:
        yield HEAD + length + b"\r\n"
        for _ in range(200):
            pause.wait(0.02)
            yield b"x"

    began = time.monotonic()
    with pytest.raises(HubUnreachable, match="took more than"):
        ask(serve(drip()), limit=1 << 20, body_seconds=0.3)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("answer", [b"", b"junk\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, b"\x00" * 100])
def test_answer_that_is_no_http_is_a_bad_road(serve, answer):
    with pytest.raises(RoadError):
        ask(serve(iter([answer])))


def test_value_that_is_no_header_is_a_bad_road():
    with pytest.raises(RoadError):
        UrllibHttp().request("GET", "http://127.0.0.1:1/", headers={"authorization": "Bearer a\r\nb: c"})


def test_nothing_is_sent_without_tls_but_to_this_machine():
    with pytest.raises(InsecureTransport):
        UrllibHttp().request("GET", "http://hub.test/")
