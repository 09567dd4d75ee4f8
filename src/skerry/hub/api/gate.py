# SPDX-License-Identifier: Apache-2.0
"""The gate in front of every route of both APIs: who asks is proven, and what they may is decided, before a body is read.

A route of the operator API names its action (`action=Action.X`); one that names none is refused to everybody. Mutating
requests leave an audit record: in the transaction that does what was asked, and before the answer when they were refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Guard, Message, Middleware, Receive, Scope, Send
from msgspec.structs import replace

from skerry.errors import DatabaseUnavailable, Forbidden, RateLimited, Unauthenticated
from skerry.hub.domain.access import AuditRecord, Note
from skerry.hub.domain.devices import Device
from skerry.hub.services.access import Action, Refused, decide_access
from skerry.hub.services.audit import AuditLog
from skerry.hub.services.people import People, Person
from skerry.hub.services.sessions import Sessions
from skerry.hub.services.strangers import Strangers

Connection = ASGIConnection[Any, Any, Any, Any]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FIRST_ERROR = 400
_LONGEST_TOKEN = 4096
_UNRECORDED = frozenset({RateLimited.code, DatabaseUnavailable.code})
"""A stranger's flood, and what could not be recorded because the database is away: there the answer must not wait twice."""


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


def address_of(connection: Connection) -> str:
    """Where a request came from, as far as this process can see."""
    return connection.client.host if connection.client is not None else ""


def device_gate(sessions: Sessions, strangers: Strangers) -> Guard:
    async def gate(connection: Connection, _: BaseRouteHandler) -> None:
        with strangers.from_address(address_of(connection)):
            connection.scope["state"]["device"] = await sessions.device(bearer(connection))

    return gate


def operator_gate(people: People, strangers: Strangers) -> Guard:
    async def gate(connection: Connection, handler: BaseRouteHandler) -> None:
        with strangers.from_address(address_of(connection)):
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


def note_of(connection: Connection, subject: str = "") -> Note:
    """What the audit log shall say of this request, to be handed to whatever does what it asks; `subject` where the path
    alone does not say what it is about.
    """
    state = connection.scope["state"]
    note = Note(record=_record(connection.scope, state["audit"], subject))
    state["note"] = note
    return note


def audited(log: AuditLog, *, below: str) -> Middleware:
    """Middleware for routes below the path `below`: what no transaction has recorded is recorded before the answer leaves."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP or scope["method"] in _SAFE_METHODS:
                await app(scope, receive, send)
                return
            scope["state"]["audit"] = Audited(log=log, below=below)

            async def note_then_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await _note_the_rest(scope, message["status"])
                await send(message)

            await app(scope, receive, note_then_send)

        return noted

    return wrap


@dataclass(frozen=True, kw_only=True)
class Audited:
    log: AuditLog
    below: str


async def _note_the_rest(scope: Scope, status: int) -> None:
    """Refusals, and what was done outside the database or needed no doing."""
    state = scope["state"]
    note, outcome = state.get("note"), "ok" if status < _FIRST_ERROR else str(state.get("outcome") or status)
    if outcome in _UNRECORDED or (outcome == "ok" and note is not None and note.written):
        return
    record = note.record if note is not None else _record(scope, state["audit"], "")
    await state["audit"].log.add(replace(record, outcome=outcome))


def _record(scope: Scope, audit: Audited, subject: str) -> AuditRecord:
    found = scope["state"].get("person")
    person = found if isinstance(found, Person) else None
    action = scope["route_handler"].opt.get("action")
    return audit.log.record(
        actor=person.name if person else "unknown",
        role=person.role.value if person else "none",
        action=action.value if isinstance(action, Action) else str(scope.get("method")),
        subject=subject or scope["path"].removeprefix(audit.below).lstrip("/"),
    )
