# SPDX-License-Identifier: Apache-2.0
"""Operator API: users, audit, summary."""

from __future__ import annotations

from typing import Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.gate import note_of
from skerry.hub.api.inventory import Limit, number
from skerry.hub.services.access import Action
from skerry.hub.services.audit import AuditLog
from skerry.hub.services.overview import Overview
from skerry.hub.services.pages import DEFAULT
from skerry.hub.services.people import People
from skerry.wire.v1.operator import AuditEntry, Page, Summary, UserRequest, UserToken, UserView

AnyRequest = Request[Any, Any, Any]


@get("/users", action=Action.READ_USERS)
async def list_users(people: NamedDependency[People]) -> Page[UserView]:
    return Page(items=await people.all())


@post("/users", action=Action.MAKE_USER)
async def make_user(request: AnyRequest, data: JSONBody[UserRequest], people: NamedDependency[People]) -> UserToken:
    """A user with one role. The token is shown in this answer and never again."""
    return await people.add(data, note=note_of(request, f"users/{data.name} as {data.role}"))


@delete("/users/{name:str}", action=Action.DELETE_USER)
async def delete_user(request: AnyRequest, name: FromPath[str], people: NamedDependency[People]) -> None:
    await people.remove(name, note=note_of(request))


@get("/audit", action=Action.READ_AUDIT)
async def list_audit(
    audit: NamedDependency[AuditLog], limit: Limit = DEFAULT, after: FromQuery[str] = ""
) -> Page[AuditEntry]:
    """Who asked the hub for what, oldest first."""
    return await audit.page(limit=limit, after=number(after))


@get("/summary", action=Action.READ_SUMMARY)
async def get_summary(overview: NamedDependency[Overview]) -> Summary:
    return await overview.summary()


HANDLERS = (list_users, make_user, delete_user, list_audit, get_summary)
