# SPDX-License-Identifier: Apache-2.0
"""The device API, version 1. Which device it is about comes from the access token, never from the path or the body."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, Router, get, post, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter, URLEncodedBody
from litestar.types import Guard
from msgspec import Struct

from skerry.errors import BadRequest, EnrolmentRefused, NotFound
from skerry.hub.api.bodies import CompressedRequest, GivenBlobs, blob_response
from skerry.hub.api.gate import address_of, device_of
from skerry.hub.api.ranges import none_match
from skerry.hub.blobs import checked_digest
from skerry.hub.services.assignments import Assignments
from skerry.hub.services.audit import AuditLog
from skerry.hub.services.catalogue import Catalogue
from skerry.hub.services.enrolment import Enrolment
from skerry.hub.services.released import ReleasedBlobs
from skerry.hub.services.reports import MAX_BATCH_BYTES, Reports
from skerry.hub.services.sessions import Sessions
from skerry.hub.services.strangers import Strangers
from skerry.wire.v1.device import CLIENT_ASSERTION_TYPE, EnrolReply, EnrolRequest, TokenReply
from skerry.wire.v1.report import ReportAck, ReportBatch

PATH = "/device/v1"

_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
_SMALL_BODY = 64 * 1024
_FOR_EVER = "public, max-age=31536000, immutable"

AnyRequest = Request[Any, Any, Any]

_UNCHANGED = ResponseSpec(data_container=None, description="Nothing changed since the validator given.")
_PART = ResponseSpec(data_container=bytes, media_type="application/octet-stream", description="The range asked for.")


class TokenForm(Struct, frozen=True, kw_only=True):
    """RFC 7523, section 2.2: the form by which a client authenticates with a signed assertion."""

    grant_type: str
    client_assertion_type: str
    client_assertion: str


@post("/enroll", request_max_body_size=_SMALL_BODY)
async def enroll(
    request: AnyRequest,
    data: JSONBody[EnrolRequest],
    enrolment: NamedDependency[Enrolment],
    strangers: NamedDependency[Strangers],
    audit: NamedDependency[AuditLog],
) -> EnrolReply:
    """Use up a one-time token and become a device of this hub."""
    try:
        with strangers.from_address(address_of(request)):
            return await enrolment.enrol(data)
    except EnrolmentRefused as error:
        await audit.add(
            audit.record(actor="unknown", role="none", action="enrol", subject=data.name, outcome=error.code)
        )
        raise


@post("/token", status_code=200, request_max_body_size=_SMALL_BODY)
async def token(
    request: AnyRequest,
    data: URLEncodedBody[TokenForm],
    sessions: NamedDependency[Sessions],
    strangers: NamedDependency[Strangers],
) -> TokenReply:
    """Exchange a fresh client assertion for an access token of 15 minutes."""
    if data.grant_type != "client_credentials":
        raise BadRequest(problem="grant_type: must be client_credentials")
    if data.client_assertion_type != CLIENT_ASSERTION_TYPE:
        raise BadRequest(problem=f"client_assertion_type: must be {CLIENT_ASSERTION_TYPE}")
    with strangers.from_address(address_of(request)):
        return await sessions.exchange(data.client_assertion)


@get("/assignment", responses={304: _UNCHANGED})
async def assignment(
    request: AnyRequest,
    assignments: NamedDependency[Assignments],
    sessions: NamedDependency[Sessions],
    wait: Annotated[
        float, QueryParameter(ge=0.0, description="Seconds to hold the answer while nothing changed.")
    ] = 0.0,
) -> Response[bytes | None]:
    """The signed assignment in force, or 304 when `If-None-Match` names it still after `wait` seconds (at most 60)."""
    device, seen = device_of(request), request.headers.get("if-none-match")
    issued = await assignments.current(device)
    if wait > 0 and not none_match(seen, issued.etag):
        await assignments.wait(device, issued, seconds=wait)
        device = await sessions.still_welcome(device.id)
        issued = await assignments.current(device)
    if not none_match(seen, issued.etag):
        return Response(content=None, status_code=304, headers={"etag": issued.etag})
    issued, envelope = await assignments.envelope(device)
    return Response(content=envelope, media_type=_ENVELOPE, headers={"etag": issued.etag})


@post("/reports", status_code=200, request_class=CompressedRequest, request_max_body_size=MAX_BATCH_BYTES)
async def report_batch(
    request: AnyRequest, data: JSONBody[ReportBatch], reports: NamedDependency[Reports]
) -> ReportAck:
    """Take in a batch, as JSON or as JSON in zstd. Sending one again changes nothing."""
    return await reports.accept(device_of(request), data)


@route(
    "/blobs/{digest:str}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    media_type="application/octet-stream",
    responses={206: _PART, 304: _UNCHANGED},
)
async def released_blob(
    request: AnyRequest, digest: FromPath[str], blobs: GivenBlobs, released: NamedDependency[ReleasedBlobs]
) -> Response[Any]:
    """A blob of a published bundle; honours Range and If-Range."""
    if not await released.holds(checked_digest(digest)):
        raise NotFound(kind="blob", name=digest)
    return await blob_response(request, blobs, digest)


@get("/catalogue/{file:str}")
async def catalogue_file(file: FromPath[str], catalogue: NamedDependency[Catalogue]) -> Response[bytes]:
    """TUF metadata under its consistent-snapshot name."""
    found = await catalogue.metadata_file(file)
    lasting = "no-cache" if file == found.name else _FOR_EVER
    return Response(content=found.data, media_type="application/json", headers={"cache-control": lasting})


@get("/catalogue/targets/{path:path}")
async def catalogue_target(path: FromPath[str], catalogue: NamedDependency[Catalogue]) -> Response[bytes]:
    """A TUF target under its path with the hash before the file name."""
    data = await catalogue.target(path.lstrip("/"))
    return Response(content=data, media_type="application/octet-stream", headers={"cache-control": _FOR_EVER})


def device_router(gate: Guard) -> Router:
    """Open are only enrolment and token, which bring proofs of their own, and the catalogue, which is signed and made to
    be held by caches and CDNs. Everything else passes the gate.
    """
    guarded = Router(
        path="/",
        route_handlers=[assignment, report_batch, released_blob],
        guards=[gate],
        security=[{"bearer": []}],
    )
    return Router(path=PATH, route_handlers=[enroll, token, catalogue_file, catalogue_target, guarded], tags=["device"])
