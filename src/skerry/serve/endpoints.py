# SPDX-License-Identifier: Apache-2.0
"""HTTP requests to answers: routes, health, metadata, metrics, and infer through the desk. Lives on the loop's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from msgspec import Struct
from msgspec.json import encode

from skerry.errors import SkerryError, UnknownPath
from skerry.observe.exposition import CONTENT_TYPE, render
from skerry.oip.messages import EXTENSIONS
from skerry.serve import documents
from skerry.serve.desk import Desk
from skerry.serve.http.call import BODY_LIMIT, Wishes, call, wishes_of
from skerry.serve.http.message import Head, HttpRequest, HttpResponse, Reply, refusal
from skerry.serve.http.routes import Endpoint, Route, route
from skerry.serve.served import Served
from skerry.serve.shm import region_endpoints
from skerry.serve.shm.regional import with_regions
from skerry.serve.shm.regions import Regions
from skerry.serve.shm.slots import Slots


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
    headers = () if ready else (("Retry-After", "1"),)
    return HttpResponse(status=status, body=encode({**document, "ready": ready}), headers=headers)


class _Infer(Struct, frozen=True, kw_only=True):
    """What the head of an infer request says; remembered with it."""

    served: Served
    wishes: Wishes
    pinned: bool = False  # the path names a version


class Endpoints:
    """`limit` bounds a body once it is inflated; without `slots` or `regions` none are offered."""

    def __init__(
        self,
        desk: Desk,
        *,
        version: str,
        gauges: Gauges,
        limit: int = BODY_LIMIT,
        slots: Slots | None = None,
        regions: Regions | None = None,
    ) -> None:
        self._desk = desk
        self._models = desk.models
        self._version = version
        self._gauges = gauges
        self._limit = limit
        self._slots = slots
        self._regions = regions
        self._documents = self._of_server()

    def handle(self, request: HttpRequest, reply: Reply) -> None:
        """Answers through `reply`, exactly once; never raises for what a client sent."""
        prepared = request.head.prepared
        try:
            if isinstance(prepared, _Infer):
                self._infer(prepared, request, reply)
                return
            if self._regions is not None and request.head.target.startswith(region_endpoints.PREFIXES):
                reply(region_endpoints.handle(self._regions, request))
                return
            found = route(request.head.method, request.head.target)
            if found.endpoint is Endpoint.INFER:
                self._infer(self._prepare(found, request.head), request, reply)
                return
            if found.endpoint is Endpoint.SLOT:
                self._slot(found, request, reply)
                return
            response = self._document(found)
        except SkerryError as error:
            response = refusal(error)
        reply(response)

    def _served(self, found: Route) -> Served:
        return self._desk.find(found.model, found.version)

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
            Endpoint.SERVER: lambda: _json(documents.server(self._version, self._extensions())),
            Endpoint.MODELS: lambda: _json({"models": list(models)}),
            Endpoint.INDEX: lambda: _json(documents.index(models.values())),
            Endpoint.ALL_STATS: lambda: _json(documents.statistics(models.values())),
            Endpoint.METRICS: self._metrics,
        }

    def _extensions(self) -> list[str]:
        return [*EXTENSIONS, *([region_endpoints.EXTENSION] if self._regions is not None else [])]

    def _metrics(self) -> HttpResponse:
        families = documents.metrics(
            self._models.values(),
            resident_bytes=self._gauges.resident_bytes(),
            connections=self._gauges.connections(),
            waiting=self._gauges.waiting(),
        )
        return HttpResponse(body=render(families), content_type=CONTENT_TYPE)

    def _slot(self, found: Route, request: HttpRequest, reply: Reply) -> None:
        if self._slots is None:
            raise UnknownPath(path=request.head.target)
        self._slots.ask(self._served(found), request.body, request.received, reply)

    # --- infer

    def _prepare(self, found: Route, head: Head) -> _Infer:
        served = self._served(found)
        try:
            prepared = _Infer(served=served, wishes=wishes_of(head.headers), pinned=bool(found.version))
        except SkerryError as error:
            served.counters.refusal(error.code)
            raise
        head.prepared = prepared
        return prepared

    def _infer(self, prepared: _Infer, request: HttpRequest, reply: Reply) -> None:
        asked = call(request.body, prepared.wishes, received=request.received, reply=reply, limit=self._limit)
        asked.ways = request.apart
        if self._regions is not None:
            asked = with_regions(asked, self._regions)
        asked.pinned = prepared.pinned
        self._desk.ask(prepared.served, asked)
