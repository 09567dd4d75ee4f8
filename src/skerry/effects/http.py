# SPDX-License-Identifier: Apache-2.0
"""HTTP through urllib3: the one place of the device and the CLI that opens a connection to a hub."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from skerry.errors import DownloadBroken, HubUnreachable, InsecureTransport, TooMuchData

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class UrllibReply:
    def __init__(self, url: str, response: urllib3.BaseHTTPResponse, body_seconds: float) -> None:
        self._url = url
        self._response = response
        self._body_seconds = body_seconds
        self.status = response.status
        self.headers: Mapping[str, str] = {key.lower(): value for key, value in response.headers.items()}

    def chunks(self, size: int = 65536) -> Iterator[bytes]:
        received = 0
        try:
            while chunk := self._response.read1(size):  # what is there: `stream` waits until a piece is full
                received += len(chunk)
                yield chunk
        except (HTTPError, OSError) as error:
            expected = self.headers.get("content-length", "?")
            raise DownloadBroken(name=self._url, received=received, expected=expected) from error

    def body(self, *, limit: int) -> bytes:
        """A body that drips byte by byte would hold its reader for ever: after some minutes it is given up."""
        parts: list[bytes] = []
        total = 0
        until = time.monotonic() + self._body_seconds
        for chunk in self.chunks():
            total += len(chunk)
            if total > limit:
                self._response.close()
                raise TooMuchData(name=self._url, limit=limit)
            if time.monotonic() > until:
                self._response.close()
                raise HubUnreachable(url=self._url, problem=f"its answer took more than {self._body_seconds:.0f} s")
            parts.append(chunk)
        return b"".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self._response.close()
        self._response.release_conn()


class UrllibHttp:
    """Keeps connections alive per host. `ca_file` adds a private authority; without it the system's are used.

    `body_seconds` bounds how long `Reply.body` may take; `Reply.chunks`, for large things, is its caller's to bound.
    """

    def __init__(self, *, ca_file: str | None = None, user_agent: str = "skerry", body_seconds: float = 300.0) -> None:
        self._body_seconds = body_seconds
        self._pool = urllib3.PoolManager(ca_certs=ca_file, headers={"user-agent": user_agent}, maxsize=4)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
        timeout: float = 30.0,
    ) -> UrllibReply:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise HubUnreachable(url=url, problem=str(error)) from error
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise InsecureTransport(url=url)
        merged = dict(self._pool.headers)
        merged.update(headers or {})
        try:
            response = self._pool.request(
                method,
                url,
                headers=merged,
                body=body,
                timeout=urllib3.Timeout(connect=min(timeout, 10.0), read=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, ValueError) as error:  # ValueError: a token or tag from the hub that is no header
            raise HubUnreachable(url=url, problem=_reason(error)) from error
        return UrllibReply(url, response, self._body_seconds)


def _reason(error: Exception) -> str:
    inner = error.__cause__ or error.__context__
    return str(inner or error)
