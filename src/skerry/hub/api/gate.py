# SPDX-License-Identifier: Apache-2.0
"""The gate in front of every route of both APIs: who asks is proven, and what they may is decided, before a body is read.

A route of the operator API names its action (`action=Action.X`); one that names none is refused to everybody. Mutating
requests leave an audit record before their answer leaves the hub, also when they were refused.
"""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Guard, Message, Middleware, Receive, Scope, Send

from skerry.errors import Forbidden, Unauthenticated
from skerry.hub.domain.devices import Device
from skerry.hub.services.access import Action, Refused, decide_access
from skerry.hub.services.audit import AuditLog
from skerry.hub.services.people import People, Person
from skerry.hub.services.sessions import Sessions

Connection = ASGIConnection[Any, Any, Any, Any]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FIRST_ERROR = 400
_LONGEST_TOKEN = 4096


def bearer(connection: Connection) -> str:
    """The one bearer token of a request. Raises Unauthenticated."""
    given = connection.headers.getall("authorization", [])
    if len(given) != 1:
        raise Unauthenticated(problem="give one Authorization: Bearer header")
    scheme, _, token = given[0].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
        raise Unauthenticated(problem="give one Authorization: Bearer header")
    return token


def device_gate(sessions: Sessions) -> Guard:
    async def gate(connection: Connection, _: BaseRouteHandler) -> None:
        connection.scope["state"]["device"] = await sessions.device(bearer(connection))

    return gate


def operator_gate(people: People) -> Guard:
    async def gate(connection: Connection, handler: BaseRouteHandler) -> None:
        person = await people.authenticate(bearer(connection))
        connection.scope["state"]["person"] = person
        action = handler.opt.get("action")
        if isinstance(decide_access(person.role, action), Refused):
            raise Forbidden(role=person.role, action=action or "do this")

    return gate


def device_of(connection: Connection) -> Device:
    """The device the gate let in: the only source of a device id on the device API."""
    device = connection.scope["state"]["device"]
    if not isinstance(device, Device):
        raise Unauthenticated(problem="no device")
    return device


def person_of(connection: Connection) -> Person:
    person = connection.scope["state"]["person"]
    if not isinstance(person, Person):
        raise Unauthenticated(problem="no person")
    return person


def name_subject(connection: Connection, subject: str) -> None:
    """Say what a request turned out to be about, where its path alone does not."""
    connection.scope["state"]["subject"] = subject


def audited(log: AuditLog, *, below: str) -> Middleware:
    """Middleware for routes below the path `below`."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP or scope["method"] in _SAFE_METHODS:
                await app(scope, receive, send)
                return

            async def note_then_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await _note(log, scope, message["status"], below)
                await send(message)

            await app(scope, receive, note_then_send)

        return noted

    return wrap


async def _note(log: AuditLog, scope: Scope, status: int, below: str) -> None:
    state = scope["state"]
    found = state.get("person")
    person = found if isinstance(found, Person) else None
    action = scope["route_handler"].opt.get("action")
    await log.note(
        actor=person.name if person else "unknown",
        role=person.role.value if person else "none",
        action=action.value if isinstance(action, Action) else str(scope.get("method")),
        subject=str(state.get("subject") or scope["path"].removeprefix(below).lstrip("/")),
        outcome="ok" if status < _FIRST_ERROR else str(state.get("outcome") or status),
    )
