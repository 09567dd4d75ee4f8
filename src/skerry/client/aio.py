# SPDX-License-Identifier: Apache-2.0
"""The asyncio client: the same calls, rules and errors as the synchronous one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, cast

from skerry.client import paths
from skerry.client.address import Address, Scheme
from skerry.client.answer import HEAD_END, MAX_HEAD, OK, Answers, Head, Result, room
from skerry.client.caller import Caller
from skerry.client.connection import Stale
from skerry.client.request import Message, Parameter
from skerry.errors import CallInvalid, CallTimedOut, ConnectionBroken, ServerUnreachable, SkerryError
from skerry.runtime.datatypes import Array

_INTERIM: Final = 200
_JOIN_BELOW: Final = 128 * 1024

Answer = tuple[Head, memoryview]


class _Connection(asyncio.Protocol):
    """One request at a time. What arrives while nothing is asked ends the connection."""

    def __init__(self, answers: Answers, url: str) -> None:
        self._answers = answers
        self._url = url
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._data = b""
        self._head: Head | None = None
        self._body: memoryview | None = None
        self._at = 0

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def exchange(self, message: Message) -> asyncio.Future[Answer]:
        """Resolves to the answer, or raises Stale, ConnectionBroken, AnswerNotUnderstood."""
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            waiting.set_exception(Stale())
        elif message.size < _JOIN_BELOW:
            self._transport.write(b"".join(message.parts))
        else:  # nothing may be changed before the transport has sent it, so it gets copies of the caller's arrays
            self._transport.writelines([bytes(part) for part in message.parts])
        return waiting

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._data or self._head is not None:
            self._fail(ConnectionBroken(url=self._url))
        else:
            self._fail(Stale())
        del error

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()
            return
        try:
            self._take(data)
        except SkerryError as error:
            self._fail(error)
            self.close()

    # --- receiving

    def _take(self, data: bytes) -> None:
        if self._head is not None:
            self._fill(memoryview(data))
            return
        self._data = data = self._data + data if self._data else data
        while self._head is None:
            end = data.find(HEAD_END)
            if end < 0:
                if len(data) > MAX_HEAD:
                    raise self._answers.bad(f"its head has more than {MAX_HEAD} bytes")
                return
            head = self._answers.head(data[:end])
            start = end + len(HEAD_END)
            if head.status < _INTERIM:
                self._data = data = data[start:]
                continue
            if len(data) - start == head.length:
                self._finish(head, memoryview(data)[start:])
                return
            self._head, self._body, self._at, self._data = head, room(head), 0, b""
            self._fill(memoryview(data)[start:])
            return

    def _fill(self, data: memoryview) -> None:
        head, body = cast("Head", self._head), cast("memoryview", self._body)
        if self._at + len(data) > head.length:
            raise self._answers.bad("more came than its Content-Length says")
        body[self._at : self._at + len(data)] = data
        self._at += len(data)
        if self._at == head.length:
            self._finish(head, body)

    def _finish(self, head: Head, body: memoryview) -> None:
        waiting = self._waiting
        self._waiting = self._head = self._body = None
        self._data = b""
        if waiting is not None and not waiting.done():
            waiting.set_result((head, body))

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class AsyncClient(Caller):
    """As `Client`, which see, for one event loop: its connections belong to the loop of the first call.

    Calls may run at the same time; each has a connection to itself. A cancelled call closes its connection.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        binary: bool = True,
        keep: int = 8,
        headers: Mapping[str, str] | None = None,
        max_answer_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(
            url, timeout=timeout, binary=binary, keep=keep, headers=headers, max_answer_bytes=max_answer_bytes
        )
        if self._address.scheme is Scheme.SHM:
            raise CallInvalid(problem=f"{url}: shared memory is for the synchronous client; use unix://")
        self._idle: deque[_Connection] = deque()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - told to the server too
        request_id: str = "",
        binary: bool | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Result:
        """See `Client.infer`."""
        options = self._options(model, version, outputs, timeout=timeout, binary=binary, parameters=parameters)
        message = self._requests.infer(inputs, options, request_id)
        head, body = await self._exchange(message, options.seconds, repeat=not parameters or options.repeatable)
        return self._answers.result(head, body, options.outputs, request_id)

    async def live(self) -> bool:
        return await self._is(paths.LIVE)

    async def ready(self, model: str = "", version: str = "") -> bool:
        return await self._is(paths.ready(model, version))

    async def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        return await self._object(paths.metadata(model, version))

    async def models(self) -> list[str]:
        return paths.names(await self._object(paths.MODELS), self._answers)

    async def config(self, model: str, version: str = "") -> dict[str, Any]:
        return await self._object(paths.config(model, version))

    async def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        return await self._object(paths.statistics(model, version))

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # closing takes effect in the loop's next turn

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- requests

    async def _is(self, path: str) -> bool:
        head, _ = await self._exchange(self._requests.get(path), self._timeout, repeat=True)
        return head.status == OK

    async def _object(self, path: str) -> dict[str, Any]:
        head, body = await self._exchange(self._requests.get(path), self._timeout, repeat=True)
        return paths.an_object(self._answers.document(head, body), self._answers)

    async def _exchange(self, message: Message, seconds: float, *, repeat: bool) -> Answer:
        if self._closed:
            raise CallInvalid(problem="the client is closed")
        until = monotonic() + seconds
        connection = self._kept()
        try:
            if connection is not None:
                try:
                    return await self._over(connection, message, until)
                except Stale:
                    if not repeat:
                        raise
            fresh = await asyncio.wait_for(_connect(self._address, self._answers), max(until - monotonic(), 0))
            return await self._over(fresh, message, until)
        except TimeoutError as error:
            raise CallTimedOut(url=self._address.url, seconds=round(seconds, 3)) from error
        except Stale as error:
            raise ConnectionBroken(url=self._address.url) from error
        except OSError as error:
            raise ServerUnreachable(url=self._address.url, problem=error.strerror or str(error)) from error

    async def _over(self, connection: _Connection, message: Message, until: float) -> Answer:
        loop = asyncio.get_running_loop()
        waiting = connection.exchange(message)
        timer = loop.call_later(max(until - monotonic(), 0), _time_out, waiting)
        head = None
        try:
            head, body = await waiting
        finally:
            timer.cancel()
            if head is None:  # also when this call is cancelled: its answer must not meet the next request
                connection.close()
        if head.keep_alive and len(self._idle) < self._keep and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()
        return head, body

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None


def _time_out(waiting: asyncio.Future[Answer]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


async def _connect(address: Address, answers: Answers) -> _Connection:
    loop = asyncio.get_running_loop()

    def protocol() -> _Connection:
        return _Connection(answers, address.url)

    if address.scheme is Scheme.HTTP:
        _, connection = await loop.create_connection(protocol, address.host, address.port)
    else:
        _, connection = await loop.create_unix_connection(protocol, address.path)
    return connection
