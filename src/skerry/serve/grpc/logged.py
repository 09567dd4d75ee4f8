# SPDX-License-Identifier: Apache-2.0
"""A service whose calls are written to the access log. Never a payload or a header's value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from skerry.serve.access import Entry
from skerry.serve.calls import Call
from skerry.serve.grpc.exchange import Failure, Incoming, Method, Payload, Reply, Service
from skerry.serve.grpc.status import GrpcStatus


class LoggedService:
    """`write` takes a finished line. A call that is refused before its message is read has none of its own."""

    def __init__(self, service: Service, *, now: Callable[[], float], write: Callable[[str], None]) -> None:
        self._service = service
        self._now = now
        self._write = write

    def find(self, path: str) -> Method | Failure:
        method = self._service.find(path)
        return method if isinstance(method, Failure) else partial(self._call, path, method)

    def _call(self, path: str, method: Method, incoming: Incoming, reply: Reply) -> Call | None:
        received, size = incoming.received, len(incoming.message)

        def answered(answer: Payload | Failure) -> None:
            reply(answer)
            failure = answer if isinstance(answer, Failure) else None
            entry = Entry(
                protocol="grpc",
                method="POST",
                path=path,
                status=(failure.status if failure is not None else GrpcStatus.OK).value,
                received=size,
                sent=0 if isinstance(answer, Failure) else sum(len(part) for part in answer),
                seconds=self._now() - received,
            )
            self._write(str(entry))

        return method(incoming, answered)
