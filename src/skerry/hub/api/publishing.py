# SPDX-License-Identifier: Apache-2.0
"""Operator API: blobs, catalogue metadata, models."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post, put, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath
from msgspec.structs import replace

from skerry.errors import BadRequest, PayloadTooLarge
from skerry.hub.api.bodies import GivenBlobs, blob_response
from skerry.hub.api.description import TakesBytes
from skerry.hub.api.gate import note_of
from skerry.hub.blobs import checked_digest
from skerry.hub.services.access import Action
from skerry.hub.services.audit import AuditLog
from skerry.hub.services.catalogue import MAX_ROLE_BYTES, Catalogue
from skerry.hub.services.models import Models
from skerry.wire.v1.operator import ModelView, Page

MAX_BLOB_BYTES = 64 * 1024**3
"""No single upload may be larger: the size of the largest model anybody runs at the edge, with room."""

AnyRequest = Request[Any, Any, Any]


@route("/blobs/{digest:str}", http_method=HttpMethod.HEAD, action=Action.UPLOAD_BLOB)
async def has_blob(request: AnyRequest, digest: FromPath[str], blobs: GivenBlobs) -> Response[Any]:
    """Whether an upload can be spared."""
    return await blob_response(request, blobs, checked_digest(digest))


@put(
    "/blobs/{digest:str}",
    status_code=201,
    action=Action.UPLOAD_BLOB,
    request_max_body_size=None,
    operation_class=TakesBytes,
)
async def put_blob(
    request: AnyRequest, digest: FromPath[str], blobs: GivenBlobs, audit: NamedDependency[AuditLog]
) -> Response[bytes]:
    """Upload the bytes with this digest. Nothing is visible before all are there and the digest is proven."""
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit():
        raise BadRequest(problem="content-length: must be a number")
    if int(declared) > MAX_BLOB_BYTES:
        raise PayloadTooLarge(limit=MAX_BLOB_BYTES)
    checked_digest(digest)
    # Files know no transactions: what begins is recorded before, how it ends before the answer.
    await audit.add(replace(note_of(request).record, outcome="begun"))
    await blobs.put(digest, request.stream(), limit=MAX_BLOB_BYTES)
    return Response(content=b"", media_type="application/octet-stream")


@get("/catalogue/roles/{role:str}", action=Action.READ_CATALOGUE_ROLE)
async def get_role(role: FromPath[str], catalogue: NamedDependency[Catalogue]) -> Response[bytes]:
    """Signed metadata of `targets` or a release role, byte for byte as devices get it."""
    return Response(content=await catalogue.role(role), media_type="application/json")


@post(
    "/catalogue/roles/{role:str}",
    status_code=204,
    action=Action.PUBLISH,
    request_max_body_size=MAX_ROLE_BYTES,
    operation_class=TakesBytes,
)
async def publish_role(request: AnyRequest, role: FromPath[str], catalogue: NamedDependency[Catalogue]) -> None:
    """The next version of a role, signed by its keys; all it names must have been uploaded. The hub signs snapshot and
    timestamp over it; a role it cannot serve whole changes nothing.
    """
    await catalogue.publish_role(role, await request.body(), note=note_of(request))


@post(
    "/catalogue/root",
    status_code=204,
    action=Action.PUBLISH,
    request_max_body_size=MAX_ROLE_BYTES,
    operation_class=TakesBytes,
)
async def publish_root(request: AnyRequest, catalogue: NamedDependency[Catalogue]) -> None:
    """The next root, signed by the thresholds of the present one and of itself."""
    await catalogue.publish_root(await request.body(), note=note_of(request))


@get("/models", action=Action.READ_MODELS)
async def list_models(models: NamedDependency[Models]) -> Page[ModelView]:
    """Every published bundle, by line, model and release."""
    return Page(items=await models.all())


@get("/models/{line:str}/{model:str}", action=Action.READ_MODELS)
async def get_model(line: FromPath[str], model: FromPath[str], models: NamedDependency[Models]) -> Page[ModelView]:
    """Every version of one model."""
    return Page(items=await models.of(line=line, model=model))


HANDLERS = (has_blob, put_blob, get_role, publish_role, publish_root, list_models, get_model)
