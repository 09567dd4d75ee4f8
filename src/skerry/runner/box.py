# SPDX-License-Identifier: Apache-2.0
"""Requests on the address of the whole box: answered here, handed to the runner whose model it is, or put together from all.

- A connection whose request names a sibling's model goes over to the sibling, and stays there until it asks for another's.
- Where it cannot (a part of the next request is here already), that one request is forwarded.
- Documents about the box cover all workloads; a sibling that does not answer is shown as unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

import msgspec

from skerry.errors import ModelDown, SkerryError
from skerry.runner.exchange import Outgoing
from skerry.runner.siblings import DOCUMENT_SECONDS, NoAnswer, ask
from skerry.serve.http.connection import Connection
from skerry.serve.http.message import Head, HttpRequest, HttpResponse, QuickResponse, Reply, refusal
from skerry.serve.http.routes import Endpoint, route
from skerry.wire.v1.runner import Route, Routes

_FORWARD_SECONDS: Final = 60.0
_RETRY_AFTER: Final = 1

Handler = Callable[[HttpRequest, Reply], None]


class Table:
    """Who serves what. The lowest workload name serves a model that several have, unless a version is named."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._found: dict[tuple[str, str], Route | None] = {}
        self.routes: tuple[Route, ...] = ()

    @property
    def own(self) -> Route:
        return next(
            (each for each in self.routes if each.workload == self._own),
            Route(workload=self._own, model="", version=""),
        )

    @property
    def siblings(self) -> list[Route]:
        return [each for each in self.routes if each.workload != self._own]

    def set(self, routes: Routes) -> None:
        self.routes = tuple(sorted(routes.routes, key=lambda each: each.workload))
        self._found = {}

    def find(self, model: str, version: str) -> Route | None:
        """The sibling to ask; None when the answer is ours to give, also that there is no such model."""
        if (model, version) in self._found:
            return self._found[model, version]
        named = [each for each in self.routes if each.model == model]
        exact = [each for each in named if each.version == version]
        chosen = next(iter(exact or named), None)
        found = None if chosen is None or chosen.workload == self._own else chosen
        if named:  # names that lead nowhere would only fill memory
            self._found[model, version] = found
        return found


def ports_elsewhere(routes: Routes, *, own: str) -> dict[tuple[str, str], int]:
    """(model, version) and (model, "") -> port of the workload that answers for it; those of `own` are left out."""
    found: dict[tuple[str, str], int] = {}
    for each in sorted(routes.routes, key=lambda each: each.workload):
        if each.workload != own:
            found.setdefault((each.model, each.version), each.port)
            found.setdefault((each.model, ""), each.port)
    return found


class Box:
    def __init__(self, own: Handler, outgoing: Outgoing, *, workload: str) -> None:
        self.table = Table(workload)
        self._own = own
        self._outgoing = outgoing
        self._asking: set[asyncio.Task[None]] = set()

    def elsewhere(self, connection: Connection, request: HttpRequest) -> bool:
        """Of the box's server: hand the connection over when this request is a sibling's."""
        if request.head.prepared is not None:  # an infer request of ours, seen before
            return False
        sibling = self._sibling(request.head)
        if sibling is None or not sibling.up or not sibling.exchange:
            return False
        return self._outgoing.send(sibling.exchange, connection, box=True)

    def handle(self, request: HttpRequest, reply: Reply) -> None:
        """Handler of the box's server."""
        if request.head.prepared is not None:
            self._own(request, reply)
            return
        try:
            found = route(request.head.method, request.head.target)
        except SkerryError:
            self._own(request, reply)
            return
        sibling = self.table.find(found.model, found.version) if found.model else None
        together = _TOGETHER.get(found.endpoint)
        if sibling is not None:
            self._soon(self._forward(sibling, request, reply))
        elif together is not None and (self.table.siblings or found.endpoint is Endpoint.METRICS):
            self._soon(self._put_together(together, request, reply))
        else:
            self._own(request, reply)

    def _sibling(self, head: Head) -> Route | None:
        try:
            found = route(head.method, head.target)
        except SkerryError:
            return None
        return self.table.find(found.model, found.version) if found.model else None

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _forward(self, sibling: Route, request: HttpRequest, reply: Reply) -> None:
        try:
            if not sibling.up or not sibling.unix:
                raise NoAnswer  # noqa: TRY301 - the same to the client
            response = await ask(sibling.unix, request, seconds=_FORWARD_SECONDS)
        except NoAnswer:
            response = _down(sibling)
        reply(response)

    async def _put_together(self, together: Together, request: HttpRequest, reply: Reply) -> None:
        siblings = self.table.siblings
        answers = await asyncio.gather(*(_part(sibling, request) for sibling in siblings))
        parts: list[HttpResponse] = []
        self._own(request, lambda own: parts.append(_plain(own)))  # documents are answered at once
        reply(together(request, [*parts, *answers], [self.table.own, *siblings]))


Together = Callable[[HttpRequest, list[HttpResponse | None], list[Route]], HttpResponse]
"""Of the request, every workload's answer, ours first and None where none came, and their routes."""


async def _part(sibling: Route, request: HttpRequest) -> HttpResponse | None:
    if not sibling.up or not sibling.unix:
        return None
    try:
        return await ask(sibling.unix, request, seconds=DOCUMENT_SECONDS)
    except NoAnswer:
        return None


def _plain(response: object) -> HttpResponse:
    if isinstance(response, QuickResponse):
        return response.plain()
    return response if isinstance(response, HttpResponse) else HttpResponse()


def _down(sibling: Route) -> HttpResponse:
    return msgspec.structs.replace(
        refusal(ModelDown(name=sibling.model)), headers=(("Retry-After", str(_RETRY_AFTER)),)
    )


def _ready(_: HttpRequest, parts: list[HttpResponse | None], __: list[Route]) -> HttpResponse:
    ready = all(part is not None and part.status == HTTPStatus.OK for part in parts)
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return HttpResponse(status=status, body=msgspec.json.encode({"ready": ready}))


def _list(key: str) -> Together:
    def together(_: HttpRequest, parts: list[HttpResponse | None], __: list[Route]) -> HttpResponse:
        joined = [entry for part in parts if part is not None for entry in _object(part.body).get(key, [])]
        return HttpResponse(body=msgspec.json.encode({key: joined}))

    return together


def _index(request: HttpRequest, parts: list[HttpResponse | None], routes: list[Route]) -> HttpResponse:
    joined: list[object] = []
    ready_only = _object(request.body).get("ready") is True
    for part, sibling in zip(parts, routes, strict=True):
        if part is not None:
            found = _json(part.body)
            joined += found if isinstance(found, list) else []
        elif not ready_only:
            joined.append(
                {
                    "name": sibling.model,
                    "version": sibling.version,
                    "state": "UNAVAILABLE",
                    "reason": "no runner of it answers",
                }
            )
    return HttpResponse(body=msgspec.json.encode(joined))


def _metrics(_: HttpRequest, parts: list[HttpResponse | None], routes: list[Route]) -> HttpResponse:
    """One text of several: samples of a family have to stand together, and its HELP and TYPE once (text format 0.0.4).

    Each sample gets a label `workload`: without it those of two processes would be the same.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for part, sibling in zip(parts, routes, strict=True):
        family = ""
        for line in part.body.decode("utf-8", "replace").splitlines() if part is not None else ():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
            if line.startswith("#"):
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, sibling.workload))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    kind = next((part.content_type for part in parts if part is not None), "")
    return HttpResponse(body=("\n".join(lines) + "\n").encode(), content_type=kind)


def _labelled(sample: str, workload: str) -> str:
    """Workload names need no escape: they are file names too."""
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{workload="{workload}",{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{workload="{workload}"}} {value}'


def _object(body: bytes) -> dict[str, Any]:
    """Empty when it is none."""
    value = _json(body)
    return value if isinstance(value, dict) else {}


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except ValueError:
        return None


_TOGETHER: Final[dict[Endpoint, Together]] = {
    Endpoint.READY: _ready,
    Endpoint.MODELS: _list("models"),
    Endpoint.ALL_STATS: _list("model_stats"),
    Endpoint.INDEX: _index,
    Endpoint.METRICS: _metrics,
}
