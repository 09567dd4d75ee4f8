# SPDX-License-Identifier: Apache-2.0
"""Every failure leaves the hub as one shape, `wire.v1.device.ErrorBody`, whoever raised it."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from skerry.errors import (
    BadRequest,
    HubInternal,
    PayloadTooLarge,
    RangeUnsatisfiable,
    RateLimited,
    SkerryError,
    StorageError,
    Unauthenticated,
    UnknownAddress,
    UnsupportedContent,
    WrongMethod,
)
from skerry.hub.api.frame import request_id
from skerry.hub.api.status import REACHABLE, http_status
from skerry.wire.v1.device import ErrorBody

log = logging.getLogger(__name__)

_UNSUPPORTED_MEDIA = 415
_FIRST_SERVER_STATUS = 500


def answer_failure(request: Request[Any, Any, Any], failure: Exception) -> Response[ErrorBody]:
    """The outermost handler of the application."""
    error = translated(failure, request)
    body = ErrorBody(code=error.code, message=str(error), hint=error.hint(), fields=plain_fields(error))
    request.scope["state"]["outcome"] = error.code
    return Response(content=body, status_code=http_status(error), headers=_headers(error, failure))


def translated(failure: Exception, request: Request[Any, Any, Any]) -> SkerryError:
    """The error a caller may see. What is not meant for callers is logged and replaced by a reference to the log."""
    if isinstance(failure, SkerryError) and isinstance(failure, REACHABLE):
        return _logged_storage(failure, request) if isinstance(failure, StorageError) else failure
    if isinstance(failure, HTTPException) and failure.status_code < _FIRST_SERVER_STATUS:
        return _of_framework(failure, request)
    if isinstance(failure, SerializationException):
        return BadRequest(problem="the body cannot be read")
    reference = request_id(request.scope)
    log.error("request failed: %s %s (%s)", request.method, request.url.path, reference, exc_info=failure)
    return HubInternal(reference=reference)


def _logged_storage(failure: StorageError, request: Request[Any, Any, Any]) -> StorageError:
    """Callers learn that there is no room, not where the hub keeps its files."""
    reference = request_id(request.scope)
    log.error("storage failed: %s (%s)", failure, reference)
    return StorageError(path=f"the hub's storage ({reference})", problem=failure.fields.get("problem", ""))


def _of_framework(failure: HTTPException, request: Request[Any, Any, Any]) -> SkerryError:
    if isinstance(failure, RequestEntityTooLarge):
        return PayloadTooLarge(limit=request.route_handler.resolve_request_max_body_size() or 0)
    if isinstance(failure, NotFoundException):
        return UnknownAddress(path=request.url.path)
    if isinstance(failure, MethodNotAllowedException):
        return WrongMethod(method=request.method, path=request.url.path)
    if failure.status_code == _UNSUPPORTED_MEDIA:
        return UnsupportedContent(kind=request.headers.get("content-type", "?"))
    if isinstance(failure, ValidationException):
        return BadRequest(problem=_invalid_parts(failure))
    return BadRequest(problem=failure.detail)


def _invalid_parts(failure: ValidationException) -> str:
    parts = failure.extra if isinstance(failure.extra, list) else []
    told = [f"{part.get('key', 'body')}: {part.get('message', '')}" for part in parts if isinstance(part, dict)]
    return "; ".join(told) or "the request does not have the shape asked for"


def plain_fields(error: SkerryError) -> dict[str, Any]:
    """The facts as JSON values; anything richer as its text."""
    plain = (str, int, float, bool, type(None))
    return {key: value if isinstance(value, plain) else str(value) for key, value in error.fields.items()}


def _headers(error: SkerryError, failure: Exception) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": 'Bearer realm="skerry"'}
    if isinstance(error, RangeUnsatisfiable):
        return {"content-range": f"bytes */{error.fields['size']}"}
    if isinstance(error, RateLimited):
        return {"retry-after": str(error.fields["retry_after"])}
    if isinstance(failure, MethodNotAllowedException):
        return {"allow": (failure.headers or {}).get("allow", "")}
    return {}
