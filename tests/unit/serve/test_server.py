# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import socket
import time

import pytest
import uvloop

from skerry.serve.http.message import HttpResponse
from skerry.serve.http.receiving import Limits
from skerry.serve.http.server import HttpServer

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 20))

    return run


class Server:
    """A server that answers `hello`, or keeps the reply for later."""

    def __init__(self, *, hold=False, limits=None, now=time.monotonic):
        self.replies = []
        self.hold = hold
        self.asked = asyncio.Event()
        self.server = HttpServer(self.handle, now=now, limits=limits)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def handle(self, request, reply):
        self.asked.set()
        if self.hold:
            self.replies.append(reply)
        else:
            reply(HttpResponse(body=b"hello"))

    async def __aenter__(self):
        await self.server.start(self.listener)
        return self

    async def __aexit__(self, *exc):
        await self.server.drain(linger=0.0, limit=0.1)

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)


async def ask(reader, writer):
    writer.write(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(5) == b"hello"
    return head


async def turn():
    """One turn of the loop."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_soon(over.set)
    await over.wait()


async def close(writer):
    writer.close()
    await writer.wait_closed()


def test_accepted_sockets_do_not_wait_for_full_packets(run):
    async def main():
        async with Server() as server:
            reader, writer = await server.connect()
            await ask(reader, writer)
            [connection] = server.server._connections
            accepted = connection._transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            await close(writer)

    run(main())


def test_drain_lets_a_keep_alive_client_ask_once_more(run):
    async def main():
        async with Server() as server:
            reader, writer = await server.connect()
            assert b"close" not in await ask(reader, writer)
            draining = asyncio.ensure_future(server.server.drain(linger=10.0))
            assert not (await asyncio.wait([draining], timeout=0.05))[0]
            assert b"Connection: close" in await ask(reader, writer)
            assert await reader.read() == b""
            await close(writer)
            await draining
            assert server.server.connections == 0

    run(main())


def test_drain_closes_idle_connections_after_the_linger_time(run):
    async def main():
        async with Server() as server:
            reader, writer = await server.connect()
            await ask(reader, writer)
            await server.server.drain(linger=0.05)
            assert await reader.read() == b""
            await close(writer)

    run(main())


def test_drain_waits_for_what_is_being_answered(run):
    async def main():
        async with Server(hold=True) as server:
            reader, writer = await server.connect()
            writer.write(GET)
            await server.asked.wait()
            draining = asyncio.ensure_future(server.server.drain(linger=0.0))
            done, _ = await asyncio.wait([draining], timeout=0.1)
            assert not done
            server.replies[0](HttpResponse(body=b"late"))
            assert b"late" in await reader.read()
            await close(writer)
            await draining

    run(main())


def test_draining_leaves_the_shared_socket_open_for_others(run):
    async def main():
        server = Server()
        other = socket.socket(fileno=socket.dup(server.listener.fileno()))
        async with server:
            pass
        loop = asyncio.get_running_loop()
        other.setblocking(False)
        client = socket.socket()
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(other))
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        accepted, _ = await accepting
        for each in (client, accepted, other):
            each.close()

    run(main())


def test_a_client_that_comes_in_the_last_moment_is_answered_or_left_for_the_next(run):
    async def main():
        answered = 0
        for turns in range(8):
            server = Server()
            with socket.socket(fileno=socket.dup(server.listener.fileno())) as other, socket.socket() as client:
                async with server:
                    client.settimeout(5)
                    client.connect(("127.0.0.1", server.port))
                    client.sendall(GET)
                    for _ in range(turns):
                        await turn()
                    await server.server.drain(linger=0.2)
                other.setblocking(False)
                try:
                    other.accept()[0].close()
                except BlockingIOError:
                    assert client.recv(65536).startswith(b"HTTP/1.1 200")
                    answered += 1
        assert answered > 2

    run(main())


def test_the_sweep_ends_what_is_overdue(run):
    async def main():
        async with Server(limits=Limits(idle_seconds=0.05)) as server:
            reader, writer = await server.connect()
            assert await reader.read() == b""
            await close(writer)

    run(main())


def test_a_burst_is_not_counted_twice(run):
    """A connection is announced before the task that brings it has ended."""

    async def main():
        async with Server(limits=Limits(connections=40, refusals=1)) as server:
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(40)]
                for each in sockets:
                    each.setblocking(False)
                    await asyncio.get_running_loop().sock_sendall(each, GET)
                for each in sockets:
                    assert (await asyncio.get_running_loop().sock_recv(each, 1000)).startswith(b"HTTP/1.1 200")

    run(main())


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def test_who_has_been_silent_for_longest_makes_room(run):
    async def main():
        clock = Clock()
        async with Server(limits=Limits(connections=2), now=clock) as server:
            silent, busy = await server.connect(), await server.connect()
            await ask(*silent)
            await ask(*busy)
            clock.seconds += 30
            await ask(*busy)
            new = await server.connect()
            await ask(*new)
            assert await silent[0].read() == b""
            await ask(*busy)
            assert server.server.connections == 2
            for _, writer in (silent, busy, new):
                await close(writer)

    run(main())


def test_a_head_that_does_not_end_makes_room_and_a_body_that_is_slow_does_not(run):
    async def main():
        clock = Clock()
        async with Server(limits=Limits(connections=2), now=clock) as server:
            head, body = await server.connect(), await server.connect()
            head[1].write(GET[:20])
            body[1].write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{")
            while not all(each._receiver.since for each in server.server._connections) or server.server.connections < 2:
                await turn()
            clock.seconds += 30
            first = await server.connect()
            await ask(*first)
            assert await head[0].read() == b""
            second = await server.connect()
            assert (await second[0].read()).startswith(b"HTTP/1.1 503")
            body[1].write(b"}")
            assert b"200" in await body[0].readline()
            for _, writer in (head, body, first, second):
                await close(writer)

    run(main())


def test_connections_in_use_are_left_alone(run):
    async def main():
        clock = Clock()
        async with Server(hold=True, limits=Limits(connections=1), now=clock) as server:
            reader, writer = await server.connect()
            writer.write(GET)
            await server.asked.wait()
            clock.seconds += 1000
            for _ in range(3):
                other = await server.connect()
                assert (await other[0].read()).startswith(b"HTTP/1.1 503")
                await close(other[1])
            server.replies[0](HttpResponse(body=b"late"))
            assert b"200" in await reader.readline()
            await close(writer)

    run(main())


def test_more_connections_than_allowed(run):
    async def main():
        async with Server(limits=Limits(connections=1)) as server:
            first = await server.connect()
            await ask(*first)
            reader, writer = await server.connect()
            assert (await reader.read()).startswith(b"HTTP/1.1 503")
            await close(writer)
            await ask(*first)
            await close(first[1])

    run(main())


def test_a_flood_of_connections_is_cut_off_without_a_word_and_those_inside_are_served_on(run):
    async def main():
        async with Server(limits=Limits(connections=1, refusals=2)) as server:
            first = await server.connect()
            await ask(*first)
            others = [await server.connect() for _ in range(10)]
            told = 0
            for reader, writer in others:
                with contextlib.suppress(ConnectionError):
                    told += (await reader.read()).startswith(b"HTTP/1.1 503")
                writer.close()
            assert told == 2
            await ask(*first)
            await close(first[1])

    run(main())
