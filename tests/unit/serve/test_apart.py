# SPDX-License-Identifier: Apache-2.0
"""Answers written by workers, over real sockets and threads: whole, in order, to the right client, and only when they may be."""

import asyncio
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

from skerry.serve.http.message import HttpResponse
from skerry.serve.http.server import HttpServer


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 30))

    return run


class Server:
    """Every request is answered by a worker with its own target, repeated `times`; `gate` holds the workers up."""

    def __init__(self, *, times=1):
        self.times = times
        self.gate = threading.Event()
        self.gate.set()
        self.pool = ThreadPoolExecutor(4)
        self.apart = 0
        self.gone = False
        self.over_loop = 0
        self.asked = asyncio.Event()
        self.sent = asyncio.Event()
        self.server = HttpServer(self.handle, now=time.monotonic)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def handle(self, request, reply):
        loop = asyncio.get_running_loop()
        way = request.apart(self)
        self.asked.set()

        def work():
            self.gate.wait(10)
            response = HttpResponse(body=request.head.target.encode() * self.times, content_type="text/plain")
            sent = way.send(response) if way is not None else None
            loop.call_soon_threadsafe(settle, sent, response)

        def settle(sent, response):
            self.apart += sent is not None
            self.over_loop += sent is None
            self.sent.set()
            reply(response if sent is None else sent)

        self.pool.submit(work)

    async def __aenter__(self):
        await self.server.start(self.listener)
        return self

    async def __aexit__(self, *exc):
        self.gate.set()
        await self.server.drain(linger=0.0, limit=0.5)
        self.pool.shutdown()

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)


def get(target, more=b""):
    return b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n" + more + b"\r\n"


async def answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return head, await reader.readexactly(length)


async def turn():
    """One turn of the loop."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_soon(over.set)
    await over.wait()


def reset(writer):
    """Leave in a way that the server hears of at once."""
    connected = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closed(writer):
    writer.close()
    await writer.wait_closed()


def test_many_clients_each_get_their_own_answers_in_order(run):
    async def client(server, name):
        reader, writer = await server.connect()
        for n in range(50):
            target = b"/%d-%d" % (name, n)
            writer.write(get(target))
            assert (await answer(reader))[1] == target
        await closed(writer)

    async def main():
        async with Server() as server:
            await asyncio.gather(*(client(server, name) for name in range(8)))
            assert server.apart + server.over_loop == 400
            assert server.apart > 0  # how many depends on who is quicker

    run(main())


def test_an_answer_larger_than_the_sockets_buffers_arrives_whole(run):
    async def main():
        async with Server(times=3_000_000) as server:
            reader, writer = await server.connect()
            for target in (b"/ab", b"/cd"):
                writer.write(get(target))
                await server.sent.wait()  # the client has not read a byte
                server.sent.clear()
                assert (await answer(reader))[1] == target * 3_000_000
            assert server.apart == 2
            await closed(writer)

    run(main())


def test_requests_sent_at_once_are_answered_in_order(run):
    async def main():
        async with Server() as server:
            reader, writer = await server.connect()
            targets = [b"/%d" % n for n in range(100)]
            writer.write(b"".join(map(get, targets)))
            assert [(await answer(reader))[1] for _ in targets] == targets
            assert server.over_loop > 0
            await closed(writer)

    run(main())


def test_what_came_while_a_worker_was_busy_is_answered_after(run):
    async def main():
        async with Server() as server:
            server.gate.clear()
            reader, writer = await server.connect()
            writer.write(get(b"/first"))
            await server.asked.wait()
            writer.write(get(b"/second"))
            connection = next(iter(server.server._connections))
            while connection.undisturbed:
                await turn()
            server.gate.set()
            assert [(await answer(reader))[1] for _ in range(2)] == [b"/first", b"/second"]
            await closed(writer)

    run(main())


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b"connection: Close\r\n"])
def test_an_answer_that_ends_its_connection_goes_over_the_loop(run, fields):
    async def main():
        async with Server() as server:
            reader, writer = await server.connect()
            writer.write(get(b"/x", fields))
            head, body = await answer(reader)
            assert b"Connection: close" in head
            assert body == b"/x"
            assert await reader.read() == b""
            assert (server.apart, server.over_loop) == (0, 1)
            await closed(writer)

    run(main())


def test_a_client_that_has_left_before_its_answer_leaves_no_connection(run, caplog):
    async def main():
        async with Server() as server:
            server.gate.clear()
            _, writer = await server.connect()
            writer.write(get(b"/x"))
            await closed(writer)  # to the server, as if it had closed its own side only
            connection = next(iter(server.server._connections))
            while not connection._finished:
                await turn()
            server.gate.set()
            await server.sent.wait()
            async with asyncio.timeout(5):
                while server.server.connections:
                    await turn()

    run(main())
    assert not caplog.records


def test_head_and_http_1_0_go_over_the_loop(run):
    async def main():
        async with Server() as server:
            reader, writer = await server.connect()
            writer.write(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"Content-Length: 2" in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"keep-alive" in (await answer(reader))[0]
            assert server.apart == 0
            await closed(writer)

    run(main())


def test_a_drain_in_the_middle_is_said_with_the_answer(run):
    async def main():
        async with Server() as server:
            server.gate.clear()
            reader, writer = await server.connect()
            writer.write(get(b"/x"))
            await server.asked.wait()
            draining = asyncio.ensure_future(server.server.drain(linger=10.0))
            await turn()
            server.gate.set()
            head, body = await answer(reader)
            assert b"Connection: close" in head
            assert body == b"/x"
            assert await reader.read() == b""
            await closed(writer)
            await draining

    run(main())


def test_a_client_that_goes_takes_no_answer_from_the_one_that_comes_on_its_descriptor(run):
    """Numbers of descriptors are used again at once: an answer for who has gone must never reach who came."""

    async def main():
        async with Server() as server:
            for n in range(30):
                server.gate.clear()
                server.asked.clear()
                server.sent.clear()
                _, gone = await server.connect()
                gone.write(get(b"/gone"))
                await server.asked.wait()
                reset(gone)
                while server.server.connections:
                    await turn()
                reader, writer = await server.connect()
                server.gate.set()
                await server.sent.wait()
                writer.write(get(b"/came-%d" % n))
                assert (await answer(reader))[1] == b"/came-%d" % n
                await closed(writer)
                while server.server.connections:
                    await turn()

    run(main())


def test_no_descriptor_is_left_behind(run):
    def count():
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    async def one(server):
        reader, writer = await server.connect()
        writer.write(get(b"/x"))
        await answer(reader)
        await closed(writer)
        while server.server.connections:
            await turn()

    async def main():
        async with Server() as server:
            await one(server)  # the loop itself opens something for the first
            before = count()
            for _ in range(20):
                await one(server)
            while count() > before:  # the loop closes its own a turn later
                await turn()
            assert server.apart == 21

    run(main())
