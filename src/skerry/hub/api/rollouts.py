# SPDX-License-Identifier: Apache-2.0
"""Operator API: rollouts."""

from __future__ import annotations

from typing import Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.gate import note_of, person_of
from skerry.hub.api.inventory import Limit, number
from skerry.hub.rollout.verbs import Verb
from skerry.hub.services.access import Action
from skerry.hub.services.pages import DEFAULT, page_of
from skerry.hub.services.rollouts import Rollouts
from skerry.wire.v1.operator import Page, RolloutEvent, RolloutSpec, RolloutView

AnyRequest = Request[Any, Any, Any]


@get("/rollouts", action=Action.READ_ROLLOUTS)
async def list_rollouts(
    rollouts: NamedDependency[Rollouts], limit: Limit = DEFAULT, after: FromQuery[str] = ""
) -> Page[RolloutView]:
    """Newest first."""
    found = await rollouts.list(limit=limit, after=after)
    return page_of(found, limit=limit, key=lambda view: view.id)


@get("/rollouts/{rollout_id:str}", action=Action.READ_ROLLOUTS)
async def get_rollout(rollout_id: FromPath[str], rollouts: NamedDependency[Rollouts]) -> RolloutView:
    return await rollouts.view(rollout_id)


@get("/rollouts/{rollout_id:str}/events", action=Action.READ_ROLLOUTS)
async def rollout_events(
    rollout_id: FromPath[str], rollouts: NamedDependency[Rollouts], limit: Limit = DEFAULT, after: FromQuery[str] = ""
) -> Page[RolloutEvent]:
    found = await rollouts.events(rollout_id, limit=limit, after=number(after))
    return page_of(found, limit=limit, key=lambda event: str(event.n))


@post("/rollouts", action=Action.START_ROLLOUT)
async def start_rollout(
    request: AnyRequest, data: JSONBody[RolloutSpec], rollouts: NamedDependency[Rollouts]
) -> RolloutView:
    rollout_id = rollouts.new_id()
    note = note_of(request, f"rollouts/{rollout_id} {data.workload}={data.bundle}")
    return await rollouts.create(data, rollout_id=rollout_id, actor=person_of(request).name, note=note)


@post("/rollouts/{rollout_id:str}/pause", status_code=200, action=Action.STEER_ROLLOUT)
async def pause_rollout(
    request: AnyRequest, rollout_id: FromPath[str], rollouts: NamedDependency[Rollouts]
) -> RolloutView:
    """Assign no further devices; those already told go on."""
    return await rollouts.command(rollout_id, Verb.PAUSE, actor=person_of(request).name, note=note_of(request))


@post("/rollouts/{rollout_id:str}/resume", status_code=200, action=Action.STEER_ROLLOUT)
async def resume_rollout(
    request: AnyRequest, rollout_id: FromPath[str], rollouts: NamedDependency[Rollouts]
) -> RolloutView:
    """Go on, accepting the failures so far."""
    return await rollouts.command(rollout_id, Verb.RESUME, actor=person_of(request).name, note=note_of(request))


@post("/rollouts/{rollout_id:str}/undo", status_code=200, action=Action.STEER_ROLLOUT)
async def undo_rollout(
    request: AnyRequest, rollout_id: FromPath[str], rollouts: NamedDependency[Rollouts]
) -> RolloutView:
    """Bring every device it touched back to what it ran before."""
    return await rollouts.command(rollout_id, Verb.UNDO, actor=person_of(request).name, note=note_of(request))


HANDLERS = (
    list_rollouts,
    get_rollout,
    rollout_events,
    start_rollout,
    pause_rollout,
    resume_rollout,
    undo_rollout,
)
