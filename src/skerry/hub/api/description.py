# SPDX-License-Identifier: Apache-2.0
"""The hub describes itself at `/schema` (OpenAPI), as data only.

The framework's own pages load their scripts from elsewhere, and a hub may have no internet; any viewer opens the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Router
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, OpenAPIMediaType, Operation, RequestBody, Schema, SecurityScheme
from litestar.openapi.spec.enums import OpenAPIType

import skerry
from skerry.wire.v1.device import ErrorBody

PATH = "/schema"

_REFERENCE = "#/components/schemas/{name}"
_FRAMEWORKS_OWN = "400"  # it describes a shape that no answer of this hub has
_REFUSAL = {
    "description": "A refusal; docs/reference/errors.md lists the codes.",
    "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name=ErrorBody.__name__)}}},
}


@dataclass
class TakesBytes(Operation):
    """An operation whose body is read as it comes, so that the framework knows nothing of it."""

    def __post_init__(self) -> None:
        as_bytes = OpenAPIMediaType(
            schema=Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
        )
        self.request_body = RequestBody(content={"application/octet-stream": as_bytes}, required=True)


def with_refusals(schema: dict[str, Any]) -> dict[str, Any]:
    """The document with the one shape every failure has, whatever the status. Safe to repeat."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].pop(_FRAMEWORKS_OWN, None)
                operation["responses"]["default"] = _REFUSAL
    _, components = msgspec.json.schema_components([ErrorBody], ref_template=_REFERENCE)
    schema["components"]["schemas"] |= components
    return schema


class _Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, with_refusals(openapi_schema))


def _nothing_else(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The framework answers every other path below this one with a page; here that is a refusal like any other."""
    if connection.path_params:
        raise NotFoundException


def description() -> OpenAPIConfig:
    scheme = SecurityScheme(type="http", scheme="bearer", description="A user's token, or a device's access token.")
    return OpenAPIConfig(
        title="Skerry hub",
        version=skerry.__version__,
        components=Components(security_schemes={"bearer": scheme}),
        openapi_router=Router(PATH, route_handlers=[], guards=[_nothing_else], include_in_schema=False),
        render_plugins=[_Json(path=["/", "/openapi.json"])],
        use_handler_docstrings=True,
    )
