# SPDX-License-Identifier: Apache-2.0
"""benchmarks/serving_bench/load.c: a figure counts only when every answer was right, so what it calls bad is tested here."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]
SOURCE = Path(__file__).parents[2] / "benchmarks" / "serving_bench" / "load.c"
REQUEST = b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    target = tmp_path_factory.mktemp("load") / "load"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-o", target, SOURCE], check=True)
    return target


@contextlib.contextmanager
def serving(*answers, pieces=1):
    """Answers each request with the next of `answers`, the last one again and again; None hangs up."""
    left = list(answers)

    def serve(connection):
        with connection, contextlib.suppress(ConnectionError):  # the program ends when its time is over
            while connection.recv(65536):
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer is None:
                    return
                size = -(-len(answer) // pieces)
                for start in range(0, len(answer), size):
                    connection.sendall(answer[start : start + size])

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def load(program, tmp_path):
    def run(address, *options, connections=1, seconds=0.2, expected=b"right"):
        (tmp_path / "request").write_bytes(REQUEST)
        (tmp_path / "expected").write_bytes(expected)
        words = [program, "http", address, connections, seconds, tmp_path / "request", tmp_path / "expected", *options]
        ran = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=30, check=True)
        return json.loads(ran.stdout)

    return run


@pytest.mark.parametrize("pieces", [1, 3, 40])
def test_right_answers_are_counted_however_they_arrive(load, pieces):
    with serving(RIGHT, pieces=pieces) as address:
        found = load(address, "warm=5", connections=3)
    assert (found["bad"], found["problem"]) == (0, "")
    assert found["requests"] == found["total"] - 5 > 0
    assert 0 < found["min"] <= found["p10"] <= found["p50"] <= found["p99"]
    assert 0.2 <= found["seconds"] < 5


def test_chunked_answers_are_whole_at_their_end(load):
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nright\r\n0\r\n\r\n"
    with serving(answer, pieces=7) as address:
        assert load(address, "warm=2", expected=b"5\r\nright\r\n0\r\n\r\n")["bad"] == 0


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([RIGHT, RIGHT, RIGHT.replace(b"right", b"wrong")], "another answer"),
        ([RIGHT, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrigh"], "another answer"),
        ([RIGHT, b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nright"], "status"),
        ([RIGHT, RIGHT, None], "closed by the server"),
        ([b"HTTP/1.1 200 OK\r\n\r\nright"], "no length"),
    ],
)
def test_one_bad_answer_is_seen_and_named(load, answers, problem):
    with serving(*answers) as address:
        found = load(address, "warm=1")
    assert found["bad"] >= 1
    assert problem in found["problem"]


def test_silence_is_not_waited_for_without_end(load):
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nright") as address:
        found = load(address, "patience=0.3")
    assert (found["bad"], found["problem"]) == (1, "no answer in time")


def test_a_pace_is_kept(load):
    with serving(RIGHT) as address:
        found = load(address, "every=20000", "warm=0", seconds=0.5)
    assert 10 <= found["total"] <= 27


def test_one_answer_is_written_down(load, tmp_path):
    with serving(RIGHT) as address:
        load(address, f"dump={tmp_path / 'answer'}")
    assert (tmp_path / "answer").read_bytes() == b"right"
