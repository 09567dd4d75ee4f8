# SPDX-License-Identifier: Apache-2.0
"""The synchronous client. Its repeats are those that do no harm, see `Client`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from skerry.client import paths
from skerry.client.address import Scheme
from skerry.client.answer import OK, Head, Result
from skerry.client.caller import Caller
from skerry.client.connection import Connection, Stale
from skerry.client.request import Message, Parameter
from skerry.client.slot_pool import SlotPool
from skerry.errors import CallInvalid, CallTimedOut, ConnectionBroken
from skerry.runtime.datatypes import Array

_LOOK_AFTER: Final = 1.0
"""Seconds a kept connection may have been idle before it is looked at: cheaper than a request that has to be repeated."""


class Client(Caller):
    """Calls models of one server, over `http://host:port`, `unix:///path.sock` or `shm:///path.sock`.

    - Threads may share a client: each call has a connection to itself, of which at most `keep` stay open between calls. So
      may a process and its forked children, which open their own.
    - `timeout` in seconds bounds a call as a whole and is told to the server, which does not run a request it comes too late for.
    - A request is sent again, once, on a new connection, only when the server has closed a kept-alive connection before any
      byte of an answer: by the protocol it may do so at any time between two requests, and infer changes nothing on the
      server. Not so with the parameter `sequence_id`, which makes a model remember. On a connection opened for the call
      nothing is sent twice.
    - Over `shm://` a call without id, parameters and JSON, on tensors of fixed sizes, goes through memory shared with the
      server (skerry-slot/1); any other call, and one the server has no slot for, goes over the same unix socket as HTTP.
    - Raises CallError: CallRefused (the server said no), ServerUnreachable, CallTimedOut, ConnectionBroken, AnswerNotUnderstood,
      CallInvalid (nothing was sent).
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
        self._idle: deque[Connection] = deque()
        self._slots = (
            SlotPool(self._address, self._requests, self._answers, keep=keep)
            if self._address.scheme is Scheme.SHM
            else None
        )
        self._process = os.getpid()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        timeout: float | None = None,
        request_id: str = "",
        binary: bool | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Result:
        """`outputs` empty = all of them; `binary=False` sends and asks for JSON."""
        options = self._options(model, version, outputs, timeout=timeout, binary=binary, parameters=parameters)
        if self._slots is not None and options.binary and not (request_id or parameters):
            result = self._slots.infer(inputs, (model, version, options.outputs, options.seconds))
            if result is not None:
                return result
        message = self._requests.infer(inputs, options, request_id)
        head, body = self._exchange(message, options.seconds, repeat=not parameters or options.repeatable)
        return self._answers.result(head, body, options.outputs, request_id)

    def live(self) -> bool:
        return self._is(paths.LIVE)

    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the model, or all models there are, can be asked."""
        return self._is(paths.ready(model, version))

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """What the model, or the server, says of itself."""
        return self._object(paths.metadata(model, version))

    def models(self) -> list[str]:
        return paths.names(self._object(paths.MODELS), self._answers)

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        return self._object(paths.config(model, version))

    def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        return self._object(paths.statistics(model, version))

    def close(self) -> None:
        """A call under way on another thread ends as it would have."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        if self._slots is not None:
            self._slots.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- requests

    def _is(self, path: str) -> bool:
        head, _ = self._exchange(self._requests.get(path), self._timeout, repeat=True)
        return head.status == OK

    def _object(self, path: str) -> dict[str, Any]:
        head, body = self._exchange(self._requests.get(path), self._timeout, repeat=True)
        return paths.an_object(self._answers.document(head, body), self._answers)

    def _exchange(self, message: Message, seconds: float, *, repeat: bool) -> tuple[Head, memoryview]:
        began = monotonic()
        connection = self._kept(began)
        if connection is not None:
            try:
                return self._over(connection, message, seconds, seconds)
            except Stale as error:
                if not repeat:
                    raise ConnectionBroken(url=self._address.url) from error
        left = seconds - (monotonic() - began)
        if left <= 0:
            raise CallTimedOut(url=self._address.url, seconds=round(seconds, 3))
        fresh = Connection(self._address, self._answers, left)
        try:
            return self._over(fresh, message, max(left - (monotonic() - began), 1e-6), seconds)
        except Stale as error:
            raise ConnectionBroken(url=self._address.url) from error

    def _over(self, connection: Connection, message: Message, left: float, total: float) -> tuple[Head, memoryview]:
        head = None
        try:
            head, body = connection.exchange(message, left, total)
        finally:
            if head is None:  # also after Ctrl-C: an answer to this request must not meet the next one
                connection.close()
        if head.keep_alive and len(self._idle) < self._keep and not self._closed:
            connection.idle_since = monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return head, body

    def _kept(self, now: float) -> Connection | None:
        if self._closed:
            raise CallInvalid(problem="the client is closed")
        if self._process != os.getpid():  # forked: these connections are the parent's
            self._process = os.getpid()
            for connection in self._idle:
                connection.close()
            self._idle.clear()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if now - connection.idle_since < _LOOK_AFTER or connection.alive():
                return connection
            connection.close()
