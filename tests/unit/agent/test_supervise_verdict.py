# SPDX-License-Identifier: Apache-2.0
"""What becomes of a connection whose runner died: every instant of a request, and the kernel's own counts on real sockets."""

from __future__ import annotations

import socket

import pytest

from skerry.agent.supervise.verdict import Noted, Seen, Verdict, judge, look, read_line
from skerry.wire.v1 import keeper as wire

BEFORE, ANSWER, REQUEST = 100, 40, 30  # bytes sent before; of the answer; of the request, after 70 received
IDLE = Noted(kept=BEFORE, promised=BEFORE, received=70)
PROMISED = Noted(kept=BEFORE, promised=BEFORE + ANSWER, received=70 + REQUEST)


def seen(sent: int, consumed: int) -> Seen:
    return Seen(sent=sent, consumed=consumed)


@pytest.mark.parametrize(
    ("noted", "at", "expected"),
    [
        (IDLE, seen(BEFORE, 70), Verdict.HAND_ON),  # idle; what the client sends next is still in the kernel
        (IDLE, seen(BEFORE, 71), Verdict.ANSWER),  # one byte was taken off the socket, and nothing noted yet
        (IDLE, seen(BEFORE, 100), Verdict.ANSWER),  # being computed
        (Noted(kept=BEFORE, promised=BEFORE + ANSWER, received=70), seen(BEFORE, 100), Verdict.ANSWER),  # half noted
        (PROMISED, seen(BEFORE, 100), Verdict.ANSWER),  # noted, not written
        (PROMISED, seen(BEFORE + 1, 100), Verdict.CLOSE),  # written in part
        (PROMISED, seen(BEFORE + ANSWER, 100), Verdict.HAND_ON),  # written, not noted
        (PROMISED, seen(BEFORE + ANSWER, 130), Verdict.ANSWER),  # and the next request taken
        (Noted(kept=140, promised=140, received=0), seen(140, 130), Verdict.ANSWER),  # more of a pipeline is owed
        (Noted(kept=140, promised=140, received=100, leaving=True), seen(140, 130), Verdict.LET_GO),
        (PROMISED, Seen(open=False), Verdict.CLOSE),
        (Noted(kept=0, promised=0, received=0), seen(0, 0), Verdict.HAND_ON),  # accepted, and no request yet
    ],
)
def test_every_instant_of_a_request(noted, at, expected):
    assert judge(noted, at) is expected


@pytest.mark.parametrize(
    ("noted", "unread", "expected"),
    [
        (IDLE, 0, Verdict.ANSWER),  # idle or not cannot be told: an idle client reads it with its next request
        (IDLE, 768, Verdict.CLOSE),  # it has an answer to read
        (Noted(kept=100, promised=140, received=100, long=True), 0, Verdict.CLOSE),
        (Noted(kept=140, promised=140, received=100, long=True), 0, Verdict.ANSWER),
    ],
)
def test_unix_sockets_have_no_counts(noted, unread, expected):
    assert judge(noted, Seen(unread=unread)) is expected


def test_line_of_the_table():
    table = wire.LINE.pack(1, 2, 3) + wire.LINE.pack(10, 20 | wire.LONG | wire.LEAVING, 30)
    assert read_line(table, 0) == Noted(kept=1, promised=2, received=3)
    assert read_line(table, 1) == Noted(kept=10, promised=20, received=30, long=True, leaving=True)


def test_counts_of_a_real_tcp_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        connected, _ = listener.accept()
        with connected:
            assert look(connected) == Seen(unread=0, consumed=0, sent=0)
            client.sendall(b"x" * 100)
            connected.recv(40)
            connected.sendall(b"y" * 7)
            client.recv(7)
            assert (look(connected).consumed, look(connected).sent) == (40, 7)
            client.shutdown(socket.SHUT_WR)
            assert (look(connected).consumed, look(connected).open) == (40, True)
            connected.recv(1000)
            assert connected.recv(1000) == b""
            assert look(connected).consumed == 100
            connected.shutdown(socket.SHUT_WR)
            assert not look(connected).open


def test_counts_of_a_real_unix_connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert look(ours) == Seen(unread=0)
        ours.sendall(b"answer")
        assert look(ours).unread > 0
        theirs.recv(100)
        assert look(ours) == Seen(unread=0)
