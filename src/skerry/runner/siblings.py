# SPDX-License-Identifier: Apache-2.0
"""Asking the other runners of the box, over their unix sockets: HTTP/1.1, one request a connection, never waiting long."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

from skerry.serve.http.message import HttpRequest, HttpResponse

DOCUMENT_SECONDS: Final = 1.0
_HEAD_LIMIT: Final = 64 * 1024
_NOT_PASSED_ON: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "upgrade", "te", "trailer"}
)
_NOT_PASSED_BACK: Final = frozenset({"connection", "content-length", "content-type", "keep-alive"})


class NoAnswer(Exception):
    """The sibling is not there, or did not answer in time."""


async def ask(path: str, request: HttpRequest, *, seconds: float) -> HttpResponse:
    """Raises NoAnswer."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path, limit=_HEAD_LIMIT)
            try:
                writer.write(_written(request))
                await writer.drain()
                return await _read(reader, head_only=request.head.method == "HEAD")
            finally:
                writer.close()
    except (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise NoAnswer(repr(error)) from error


def _written(request: HttpRequest) -> bytes:
    head = request.head
    lines = [f"{head.method} {head.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in head.headers.items() if name not in _NOT_PASSED_ON]
    lines += [f"content-length: {len(request.body)}", "connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body


async def _read(reader: asyncio.StreamReader, *, head_only: bool) -> HttpResponse:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = [line.partition(":") for line in lines[1:] if line]
    headers = [(name.strip(), value.strip()) for name, _, value in fields]
    named = {name.lower(): value for name, value in headers}
    body = b"" if head_only else await reader.readexactly(int(named.get("content-length", "0")))
    return HttpResponse(
        status=HTTPStatus(int(lines[0].split(" ")[1])),
        body=body,
        content_type=named.get("content-type", ""),
        headers=tuple((name, value) for name, value in headers if name.lower() not in _NOT_PASSED_BACK),
    )
