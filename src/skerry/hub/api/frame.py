# SPDX-License-Identifier: Apache-2.0
"""What frames every answer, errors included: request id, security headers, counting."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Middleware, Receive, Scope, Send

from skerry.hub.api.metrics import Meter

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000")


def request_id(scope: Scope) -> str:
    """The caller's `X-Request-Id` when it is a harmless word, else one of ours; the same for the whole request."""
    state = scope["state"]
    if "request_id" not in state:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        usable = _GIVEN_ID.fullmatch(given) is not None
        state["request_id"] = given.decode("ascii") if usable else secrets.token_hex(8)
    return str(state["request_id"])


def framing(meter: Meter) -> Callable[[Message, Scope], Awaitable[None]]:
    """A hook that sees the start of every answer, also of those no route made."""

    async def frame(message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start" or scope["type"] != ScopeType.HTTP:
            return
        headers = list(message.get("headers", []))
        present = {name.lower() for name, _ in headers}
        headers.append((b"x-request-id", request_id(scope).encode()))
        headers.extend(header for header in _HEADERS if header[0] not in present)
        if scope["scheme"] == "https":
            headers.append(_HSTS)
        if b"cache-control" not in present:
            headers.append((b"cache-control", b"no-store"))
        message["headers"] = headers
        started = scope["state"].get("started")
        seconds = time.monotonic() - started if started is not None else 0.0
        template = str(scope.get("path_template") or "none")
        meter.answered(method=str(scope.get("method", "")), route=template, status=message["status"], seconds=seconds)

    return frame


def timing(meter: Meter) -> Middleware:
    """Middleware that notes when a routed request began, and that it has not ended yet."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def timed(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["started"] = time.monotonic()
            meter.in_flight += 1
            try:
                await app(scope, receive, send)
            finally:
                meter.in_flight -= 1

        return timed

    return wrap
