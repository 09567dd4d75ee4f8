# SPDX-License-Identifier: Apache-2.0
"""`/v2/systemsharedmemory`: regions are registered, shown and given up. `/v2/cudasharedmemory` has none and says so."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec.json import Decoder, encode

from skerry.errors import InferenceRequestInvalid, MethodNotAllowed, UnknownPath
from skerry.serve.http.message import HttpRequest, HttpResponse
from skerry.serve.shm.regions import Regions, Registration

EXTENSION: Final = "system_shared_memory"
PREFIXES: Final = ("/v2/systemsharedmemory/", "/v2/cudasharedmemory/")
_MAX_SHOWN: Final = 200
_REGISTER, _UNREGISTER, _STATUS = "register", "unregister", "status"
_GET: Final = ("GET", "HEAD")
_decoder: Final = Decoder(Registration)


def handle(regions: Regions, request: HttpRequest) -> HttpResponse:
    """Raises SkerryError. Success of a change is 200 with an empty body, which is what Triton's client looks at."""
    path = request.head.target.partition("?")[0]
    _, _, kind, *rest = path.split("/")
    action = rest[-1]
    name = _name(path, rest[:-1])
    if action not in {_STATUS, _UNREGISTER, _REGISTER} or (action == _REGISTER and not name):
        raise UnknownPath(path=path[:_MAX_SHOWN])
    allowed = _GET if action == _STATUS else ("POST",)
    if request.head.method not in allowed:
        raise MethodNotAllowed(method=request.head.method, path=path[:_MAX_SHOWN], allow=", ".join(allowed))
    return _system(regions, action, name, request.body) if kind == "systemsharedmemory" else _cuda(action)


def _name(path: str, parts: list[str]) -> str:
    """Of `region/NAME`; empty when the path is about all of them."""
    if not parts:
        return ""
    try:
        where, name = parts
        decoded = unquote_to_bytes(name).decode()
    except UnicodeDecodeError as error:
        raise InferenceRequestInvalid(problem="the path is not UTF-8") from error
    except ValueError as error:
        raise UnknownPath(path=path[:_MAX_SHOWN]) from error
    if where != "region" or not decoded:
        raise UnknownPath(path=path[:_MAX_SHOWN])
    return decoded


def _system(regions: Regions, action: str, name: str, body: bytes) -> HttpResponse:
    if action == _STATUS:
        return HttpResponse(body=encode(regions.status(name)))
    if action == _UNREGISTER:
        regions.unregister(name)
    else:
        regions.register(name, _registration(body))
    return HttpResponse()


def _registration(body: bytes) -> Registration:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InferenceRequestInvalid(problem=f"the request is not valid: {error}") from error


def _cuda(action: str) -> HttpResponse:
    """Clients give up all regions of all kinds before they begin: nothing to give up is no error."""
    if action == _REGISTER:
        raise InferenceRequestInvalid(problem="memory of an accelerator is not offered")
    return HttpResponse(body=b"[]" if action == _STATUS else b"")
