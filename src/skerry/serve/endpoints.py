# SPDX-License-Identifier: Apache-2.0
"""Requests to answers: routes, health, metadata, metrics, and infer through the scheduler. Lives on the loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

from msgspec.json import encode

from skerry.effects import Clock
from skerry.errors import InferenceFailed, NotReady, SkerryError, UnknownModel
from skerry.observe.counters import Timing
from skerry.observe.exposition import CONTENT_TYPE, render
from skerry.serve import documents
from skerry.serve.http.message import BINARY, HttpRequest, HttpResponse, Reply, refusal
from skerry.serve.http.routes import Endpoint, Route, route
from skerry.serve.inference import Answered, Call, Refused, Served, header_length, infer
from skerry.serve.schedule import Crashed, Inline, Workers, guarded, place


class Witness(Protocol):
    def answered(self, served: Served, answer: Answered) -> None:
        """Called after each answered request; must be quick and must not raise."""


@dataclass(frozen=True, kw_only=True)
class Gauges:
    """Figures of the process that only its shell knows."""

    resident_bytes: Callable[[], int]
    connections: Callable[[], int]
    waiting: Callable[[], int]


_OF_MODEL: Final[dict[Endpoint, Callable[[Served], documents.Document]]] = {
    Endpoint.MODEL: documents.metadata,
    Endpoint.CONFIG: documents.config,
    Endpoint.STATS: lambda served: documents.statistics([served]),
}


def _json(document: object) -> HttpResponse:
    return HttpResponse(body=encode(document))


def _readiness(document: dict[str, object], *, ready: bool) -> HttpResponse:
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return HttpResponse(status=status, body=encode({**document, "ready": ready}))


class Endpoints:
    def __init__(
        self,
        models: Mapping[str, Served],
        *,
        workers: Workers,
        clock: Clock,
        version: str,
        gauges: Gauges,
        witness: Witness | None = None,
        body_limit: int = 64 * 1024 * 1024,
    ) -> None:
        self._models = models
        self._workers = workers
        self._clock = clock
        self._version = version
        self._gauges = gauges
        self._witness = witness
        self._body_limit = body_limit
        self._documents = self._of_server()

    def handle(self, request: HttpRequest, reply: Reply) -> None:
        """Answers through `reply`, exactly once; never raises for what a client sent."""
        try:
            found = route(request.method, request.target)
            if found.endpoint is Endpoint.INFER:
                self._infer(self._served(found), request, reply)
                return
            response = self._document(found)
        except SkerryError as error:
            response = refusal(error)
        reply(response)

    def _served(self, found: Route) -> Served:
        served = self._models.get(found.model)
        if served is None:
            raise UnknownModel(name=found.model)
        if found.version not in {"", served.signature.version}:
            raise UnknownModel(name=f"{found.model} version {found.version}")
        return served

    # --- everything but infer

    def _document(self, found: Route) -> HttpResponse:
        if found.endpoint in self._documents:
            return self._documents[found.endpoint]()
        served = self._served(found)
        if found.endpoint is Endpoint.MODEL_READY:
            return _readiness({"name": served.signature.name}, ready=served.ready)
        return _json(_OF_MODEL[found.endpoint](served))

    def _of_server(self) -> dict[Endpoint, Callable[[], HttpResponse]]:
        models = self._models
        return {
            Endpoint.LIVE: lambda: _json({"live": True}),
            Endpoint.READY: lambda: _readiness({}, ready=all(served.ready for served in models.values())),
            Endpoint.SERVER: lambda: _json(documents.server(self._version)),
            Endpoint.MODELS: lambda: _json({"models": list(models)}),
            Endpoint.INDEX: lambda: _json(documents.index(models.values())),
            Endpoint.ALL_STATS: lambda: _json(documents.statistics(models.values())),
            Endpoint.METRICS: self._metrics,
        }

    def _metrics(self) -> HttpResponse:
        families = documents.metrics(
            self._models.values(),
            resident_bytes=self._gauges.resident_bytes(),
            connections=self._gauges.connections(),
            waiting=self._gauges.waiting(),
        )
        return HttpResponse(body=render(families), content_type=CONTENT_TYPE)

    # --- infer

    def _infer(self, served: Served, request: HttpRequest, reply: Reply) -> None:
        try:
            self._start(served, request, reply)
        except SkerryError as error:  # refused before it reached the model's turn
            reply(self._refused(served, error))

    def _start(self, served: Served, request: HttpRequest, reply: Reply) -> None:
        if not served.ready:
            raise NotReady(name=served.signature.name)
        headers = request.headers
        call = Call(
            body=request.body,
            received=request.received,
            header_length=header_length(headers.get("inference-header-content-length")),
            content_encoding=headers.get("content-encoding", ""),
            accept_encoding=headers.get("accept-encoding", ""),
            limit=self._body_limit,
        )
        self.ask(served, call, partial(self._finish, served, call, reply))

    def ask(self, served: Served, call: Call, done: Callable[[Answered | Refused | Crashed], None]) -> None:
        """The way every request takes, a client's or a probe: inline or through the workers. Raises Overloaded."""
        job = partial(infer, served, call, self._clock.monotonic)
        if isinstance(place(served.cost, len(call.body), compressed=bool(call.content_encoding)), Inline):
            done(guarded(job))
        else:
            self._workers.submit(job, done)

    def _finish(self, served: Served, call: Call, reply: Reply, result: Answered | Refused | Crashed) -> None:
        match result:
            case Answered():
                reply(_infer_response(result))
                self._count(served, call, result)
            case Refused():
                reply(self._refused(served, result.error))
            case Crashed():
                error = InferenceFailed(name=served.signature.name, problem="an internal error, see the log")
                reply(self._refused(served, error))

    def _count(self, served: Served, call: Call, result: Answered) -> None:
        total = self._clock.monotonic() - call.received
        timing = Timing(queue=result.queue, compute=result.compute, total=total)
        served.counters.answer(timing, rows=result.rows, not_finite=result.answer.not_finite, at=self._clock.now())
        if self._witness is not None:
            self._witness.answered(served, result)

    @staticmethod
    def _refused(served: Served, error: SkerryError) -> HttpResponse:
        response = refusal(error)
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            served.counters.failure(error.code)
        else:
            served.counters.refusal(error.code)
        return response


def _infer_response(result: Answered) -> HttpResponse:
    headers: tuple[tuple[str, str], ...] = ()
    content_type = "application/json"
    if result.answer.header_length is not None:
        headers = (("Inference-Header-Content-Length", str(result.answer.header_length)),)
        content_type = BINARY
    if result.content_encoding:
        headers += (("Content-Encoding", result.content_encoding),)
    return HttpResponse(body=result.answer.body, content_type=content_type, headers=headers)
