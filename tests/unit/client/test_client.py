# SPDX-License-Identifier: Apache-2.0
"""Both clients against a server that follows a script: what is sent again, what is not, and which error says what."""

import asyncio
import os
import socket
import threading

import numpy as np
import pytest

from skerry import errors
from skerry.client import AsyncClient, Client
from unit.client.scripted import GOOD, Scripted, Y, answer, described, inferred

X = np.ones((1, 4), np.float32)


class Blocking:
    """AsyncClient with the synchronous client's face, on a loop of its own."""

    def __init__(self, url, **options):
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(url, **options)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *args, **options: self._loop.run_until_complete(method(*args, **options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self._loop.close()


@pytest.fixture(params=[Client, Blocking], ids=["sync", "asyncio"])
def connect(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def test_an_answer_and_the_next_on_the_same_connection(connect, path):
    with Scripted(path, [GOOD, GOOD]) as server, connect(server.url) as client:
        for _ in range(2):
            assert client.infer("m", {"x": X})["y"].tolist() == [0, 1, 2]
        assert server.accepted == 1
        assert server.requests[0] == server.requests[1]


def test_an_answer_in_small_pieces(connect, path):
    pieces = [GOOD[at : at + 7] for at in range(0, len(GOOD), 7)]
    with Scripted(path, [pieces]) as server, connect(server.url) as client:
        assert client.infer("m", {"x": X})["y"].tolist() == [0, 1, 2]


def test_a_long_answer(connect, path):
    long = np.arange(300_000, dtype=np.float64)
    odd = np.arange(3, dtype=np.uint8)
    data = inferred(described("o", odd, "UINT8"), described("y", long, "FP64"), tail=odd.tobytes() + long.tobytes())
    with Scripted(path, [data]) as server, connect(server.url) as client:
        result = client.infer("m", {"x": X})
    assert np.array_equal(result["y"], long)
    assert result["y"].flags.aligned
    assert result["y"].flags.writeable


def test_a_long_request(connect, path):
    x = np.arange(500_000, dtype=np.float64)
    with Scripted(path, [GOOD]) as server, connect(server.url) as client:
        client.infer("m", {"none": np.zeros((0, 2), np.float32), "x": x})
        assert server.requests[0].endswith(x.tobytes())


def test_interim_answers_are_passed_over(connect, path):
    with (
        Scripted(path, [[b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + GOOD]]) as server,
        connect(server.url) as client,
    ):
        assert client.infer("m", {"x": X})["y"].size == 3


def test_a_kept_connection_the_server_closed_is_replaced_and_nobody_notices(connect, path):
    with Scripted(path, [GOOD, None], [GOOD]) as server, connect(server.url) as client:
        for _ in range(2):
            assert client.infer("m", {"x": X})["y"].size == 3
        assert server.accepted == 2
        assert len(server.requests) == 2


def test_a_request_that_met_the_closing_is_sent_once_more(connect, path):
    with Scripted(path, [GOOD, [None]], [GOOD]) as server, connect(server.url) as client:
        for _ in range(2):
            assert client.infer("m", {"x": X})["y"].size == 3
        assert len(server.requests) == 3
        assert server.requests[1] == server.requests[2]


def test_it_is_sent_once_more_and_no_more(connect, path):
    with Scripted(path, [GOOD, [None]], [[None]], [GOOD]) as server, connect(server.url) as client:
        client.infer("m", {"x": X})
        with pytest.raises(errors.ConnectionBroken):
            client.infer("m", {"x": X})
        assert len(server.requests) == 3


def test_a_request_of_a_sequence_is_not_sent_twice(connect, path):
    with Scripted(path, [GOOD, [None]], [GOOD]) as server, connect(server.url) as client:
        client.infer("m", {"x": X}, parameters={"sequence_id": 1})
        with pytest.raises(errors.ConnectionBroken):
            client.infer("m", {"x": X}, parameters={"sequence_id": 1})
        assert len(server.requests) == 2


def test_nothing_is_sent_twice_once_an_answer_began(connect, path):
    with Scripted(path, [GOOD, [GOOD[:30], None]], [GOOD]) as server, connect(server.url) as client:
        client.infer("m", {"x": X})
        with pytest.raises(errors.ConnectionBroken):
            client.infer("m", {"x": X})
        assert len(server.requests) == 2


@pytest.mark.parametrize("cut", [0, 30, len(GOOD) - 1])
def test_a_new_connection_that_ends_early_is_an_error(connect, path, cut):
    with Scripted(path, [[GOOD[:cut], None]], [GOOD]) as server, connect(server.url) as client:
        with pytest.raises(errors.ConnectionBroken):
            client.infer("m", {"x": X})
        assert server.accepted == 1


def test_connection_close_is_heeded(connect, path):
    last = inferred(described("y", Y), tail=Y.tobytes(), extra=("Connection: close",))
    with Scripted(path, [last], [GOOD]) as server, connect(server.url) as client:
        for _ in range(2):
            client.infer("m", {"x": X})
        assert server.accepted == 2


def test_no_answer_in_time(connect, path):
    with Scripted(path, [...]) as server, connect(server.url) as client:
        with pytest.raises(errors.CallTimedOut) as caught:
            client.infer("m", {"x": X}, timeout=0.05)
        assert caught.value.fields["seconds"] == 0.05


def test_an_answer_that_dribbles_does_not_win_time(connect, path):
    def dribble():
        for _ in range(200):
            yield GOOD[:1] if _ == 0 else b"HTTP/1.1 200 OK\r\n"[_ % 17 : _ % 17 + 1]
            gate.wait(0.02)

    gate = threading.Event()

    class Slow(list):
        def __iter__(self):
            return dribble()

    with Scripted(path, [Slow()]) as server, connect(server.url) as client:
        with pytest.raises((errors.CallTimedOut, errors.AnswerNotUnderstood)):
            client.infer("m", {"x": X}, timeout=0.1)
        gate.set()


def test_after_a_timeout_the_late_answer_meets_nobody(connect, path):
    other = inferred(described("y", Y + 5), tail=(Y + 5).tobytes())
    with Scripted(path, [GOOD], [other]) as server, connect(server.url) as client:
        client.infer("m", {"x": X})
    with Scripted(path.with_name("t"), [...], [other]) as server, connect(server.url) as client:
        with pytest.raises(errors.CallTimedOut):
            client.infer("m", {"x": X}, timeout=0.05)
        server._done.set()
        assert client.infer("m", {"x": X})["y"].tolist() == [5, 6, 7]


def test_no_server(connect, path):
    with connect(f"unix://{path}") as client, pytest.raises(errors.ServerUnreachable):
        client.infer("m", {"x": X})
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with connect(f"http://127.0.0.1:{port}") as client, pytest.raises(errors.ServerUnreachable):
        client.live()


def test_a_refusal_keeps_the_connection(connect, path):
    no = answer(b'{"error":"no such input"}', status="400 Bad Request")
    with Scripted(path, [no, GOOD]) as server, connect(server.url) as client:
        with pytest.raises(errors.CallRefused) as caught:
            client.infer("m", {"x": X})
        assert caught.value.fields["status"] == 400
        client.infer("m", {"x": X})
        assert server.accepted == 1


def test_a_refusal_before_all_was_sent_is_heard(connect, path):
    """The server answers 413 and closes while megabytes are still on their way."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve():
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(
            answer(b'{"error":"too large"}', status="413 Content Too Large", extra=("Connection: close",))
        )
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with connect(f"unix://{path}") as client, pytest.raises(errors.CallRefused) as caught:
        client.infer("m", {"x": np.zeros(4_000_000)})
    thread.join()
    listener.close()
    assert caught.value.fields["status"] == 413


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * 70_000,
        GOOD + b"x",
        answer(b"{}"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
    ],
    ids=["ssh", "noise", "more", "json", "huge"],
)
def test_an_answer_that_cannot_be_used_closes_the_connection_if_it_may_be_out_of_step(connect, path, data):
    with Scripted(path, [data], [GOOD]) as server, connect(server.url) as client:
        with pytest.raises(errors.AnswerNotUnderstood):
            client.infer("m", {"x": X})
        assert server.accepted == 1


def test_documents(connect, path):
    with Scripted(
        path, [answer(b'{"models":["a"]}'), answer(b'{"name":"a"}'), answer(b'{"c":1}'), answer(b'{"s":1}')]
    ) as server:
        with connect(server.url) as client:
            assert client.models() == ["a"]
            assert client.metadata("a", "1") == {"name": "a"}
            assert client.config("a") == {"c": 1}
            assert client.statistics() == {"s": 1}
        assert [request.split(b" ")[1] for request in server.requests] == [
            b"/v2/models", b"/v2/models/a/versions/1", b"/v2/models/a/config", b"/v2/models/stats",
        ]  # fmt: skip


@pytest.mark.parametrize("body", [b"[]", b'{"models":1}', b'{"models":[1]}', b"no"])
def test_documents_of_another_kind(connect, path, body):
    with Scripted(path, [answer(body)]) as server, connect(server.url) as client:
        with pytest.raises(errors.AnswerNotUnderstood):
            client.models()
        assert server.accepted == 1


def test_health(connect, path):
    yes, no = answer(b""), answer(b'{"ready":false}', status="503 Service Unavailable")
    with Scripted(path, [yes, no, no]) as server, connect(server.url) as client:
        assert client.live()
        assert not client.ready()
        assert not client.ready("m", "1")


def test_a_closed_client_sends_nothing(connect, path):
    with Scripted(path, [GOOD]) as server, connect(server.url) as client:
        client.close()
        with pytest.raises(errors.CallInvalid):
            client.live()
        assert server.accepted == 0


def test_an_idle_connection_is_looked_at_before_it_is_used(path):
    with Scripted(path, [GOOD, None], [GOOD]) as server, Client(server.url) as client:
        client.infer("m", {"x": X}, parameters={"sequence_id": 1})
        client._idle[0].idle_since -= 10
        wait_until_closed(client._idle[0]._socket)
        client.infer("m", {"x": X}, parameters={"sequence_id": 1})  # not even a sequence loses a request
        assert len(server.requests) == 2


def wait_until_closed(connection):
    connection.recv(1, socket.MSG_PEEK)


def test_a_forked_child_opens_its_own_connection(path):
    with Scripted(path, [GOOD, GOOD], [GOOD]) as server, Client(server.url) as client:
        client.infer("m", {"x": X})
        client._process = os.getpid() + 1  # as a child sees it
        kept = client._idle[0]
        assert client._kept(0.0) is None
        assert kept._socket.fileno() == -1


def test_shared_memory_is_not_for_asyncio():
    with pytest.raises(errors.CallInvalid):
        AsyncClient("shm:///run/x")


def test_calls_run_at_the_same_time_and_a_cancelled_one_disturbs_none(path):
    async def play(url):
        async with AsyncClient(url) as client:
            stuck = asyncio.create_task(client.infer("m", {"x": X}))
            assert await asyncio.to_thread(server.asked.wait, 10)
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
            server._done.set()
            return await client.infer("m", {"x": X})

    with Scripted(path, [...], [GOOD]) as server:
        assert asyncio.run(play(server.url))["y"].size == 3
