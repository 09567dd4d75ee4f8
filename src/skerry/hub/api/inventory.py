# SPDX-License-Identifier: Apache-2.0
"""Operator API: devices, fleets, enrolment tokens."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from skerry.errors import BadRequest
from skerry.hub.api.gate import note_of, person_of
from skerry.hub.services.access import Action
from skerry.hub.services.devices import Devices, Fleets
from skerry.hub.services.enrolment import Enrolment
from skerry.hub.services.labels import parsed_selector
from skerry.hub.services.pages import DEFAULT, LARGEST
from skerry.wire.v1.operator import (
    DevicePatch,
    DeviceView,
    EnrolmentToken,
    EnrolmentTokenRequest,
    FleetSpec,
    FleetView,
    History,
    Page,
    StoredResult,
)
from skerry.wire.v1.report import Report

Limit = Annotated[int, QueryParameter(ge=1, le=LARGEST, description="Items on one page.")]

AnyRequest = Request[Any, Any, Any]


def number(after: str) -> int:
    """The key of a page whose keys are numbers. Raises BadRequest."""
    if not after:
        return 0
    if not after.isascii() or not after.isdigit() or len(after) > 18:  # noqa: PLR2004 - 18 digits fit 64 bits
        raise BadRequest(problem="after: give what the page before gave")
    return int(after)


@get("/devices", action=Action.READ_DEVICES)
async def list_devices(
    devices: NamedDependency[Devices], selector: FromQuery[str] = "", limit: Limit = DEFAULT, after: FromQuery[str] = ""
) -> Page[DeviceView]:
    """Devices by id; `selector` is `key=value,key2=value2`."""
    return await devices.page(selector=parsed_selector(selector), limit=limit, after=after)


@get("/devices/{device_id:str}", action=Action.READ_DEVICES)
async def get_device(device_id: FromPath[str], devices: NamedDependency[Devices]) -> DeviceView:
    return await devices.one(device_id)


@get("/devices/{device_id:str}/history", action=Action.READ_DEVICES)
async def device_history(device_id: FromPath[str], devices: NamedDependency[Devices]) -> History:
    """The device's whole chain with the key to verify it, also after the device was deleted."""
    return await devices.history(device_id)


@get("/devices/{device_id:str}/results", action=Action.READ_DEVICES)
async def device_results(
    device_id: FromPath[str], devices: NamedDependency[Devices], limit: Limit = DEFAULT, after: FromQuery[str] = ""
) -> Page[StoredResult]:
    return await devices.results(device_id, limit=limit, after=number(after))


@get("/devices/{device_id:str}/reports", action=Action.READ_DEVICES)
async def device_reports(
    device_id: FromPath[str], devices: NamedDependency[Devices], limit: Limit = DEFAULT, after: FromQuery[str] = ""
) -> Page[Report]:
    return await devices.reports(device_id, limit=limit, after=number(after))


@patch("/devices/{device_id:str}", action=Action.LABEL_DEVICE)
async def label_device(
    request: AnyRequest, device_id: FromPath[str], data: JSONBody[DevicePatch], devices: NamedDependency[Devices]
) -> DeviceView:
    return await devices.patch(device_id, data, note=note_of(request))


@post("/devices/{device_id:str}/revoke", status_code=200, action=Action.REVOKE_DEVICE)
async def revoke_device(request: AnyRequest, device_id: FromPath[str], devices: NamedDependency[Devices]) -> DeviceView:
    """From now on the device gets nothing from this hub. What it runs, it goes on running."""
    return await devices.revoke(device_id, note=note_of(request))


@delete("/devices/{device_id:str}", action=Action.DELETE_DEVICE)
async def delete_device(request: AnyRequest, device_id: FromPath[str], devices: NamedDependency[Devices]) -> None:
    """Take the device out of every list. Its history stays."""
    await devices.delete(device_id, note=note_of(request))


@get("/fleets", action=Action.READ_FLEETS)
async def list_fleets(fleets: NamedDependency[Fleets]) -> Page[FleetView]:
    return Page(items=await fleets.all())


@get("/fleets/{name:str}", action=Action.READ_FLEETS)
async def get_fleet(name: FromPath[str], fleets: NamedDependency[Fleets]) -> FleetView:
    return await fleets.one(name)


@put("/fleets/{name:str}", action=Action.SET_FLEET)
async def put_fleet(
    request: AnyRequest, name: FromPath[str], data: JSONBody[FleetSpec], fleets: NamedDependency[Fleets]
) -> FleetView:
    return await fleets.put(name, data, note=note_of(request))


@post("/enrolment-tokens", action=Action.MAKE_ENROLMENT_TOKEN)
async def make_enrolment_token(
    request: AnyRequest, data: JSONBody[EnrolmentTokenRequest], enrolment: NamedDependency[Enrolment]
) -> EnrolmentToken:
    """A token for one device. It is shown in this answer and never again."""
    note = note_of(request, f"enrolment-tokens {sorted(data.labels.items())}")
    return await enrolment.make_token(data, by=person_of(request).name, note=note)


HANDLERS = (
    list_devices,
    get_device,
    device_history,
    device_results,
    device_reports,
    label_device,
    revoke_device,
    delete_device,
    list_fleets,
    get_fleet,
    put_fleet,
    make_enrolment_token,
)
