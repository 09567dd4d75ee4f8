# SPDX-License-Identifier: Apache-2.0
"""A scripted network behind effects.Http: handlers answer, and the road can be cut, before or in the middle of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Self
from urllib.parse import urlsplit

from msgspec import Struct

from skerry.errors import DownloadBroken, HubUnreachable, TooMuchData


class Request(Struct, frozen=True, kw_only=True):
    method: str
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def query(self) -> str:
        return urlsplit(self.url).query


class Answer(Struct, frozen=True, kw_only=True):
    """`breaks_after` = the connection breaks once that many bytes of the body have been read."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    breaks_after: int | None = None


Handler = Callable[[Request], Answer]


class ScriptedReply:
    def __init__(self, url: str, answer: Answer) -> None:
        self._url = url
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = {key.lower(): value for key, value in answer.headers.items()}

    def chunks(self, size: int = 65536) -> Iterator[bytes]:
        body, limit = self._answer.body, self._answer.breaks_after
        end = len(body) if limit is None else min(limit, len(body))
        for start in range(0, end, size):
            yield body[start : min(start + size, end)]
        if limit is not None:
            raise DownloadBroken(name=self._url, received=end, expected=len(body))

    def body(self, *, limit: int) -> bytes:
        data = b"".join(self.chunks())
        if len(data) > limit:
            raise TooMuchData(name=self._url, limit=limit)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return


class ScriptedHttp:
    """`routes` maps (method, path prefix) to a handler; the longest prefix wins; no route = 404. All requests are kept."""

    def __init__(self, routes: dict[tuple[str, str], Handler] | None = None) -> None:
        self.routes = dict(routes or {})
        self.requests: list[Request] = []
        self.down = False

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
        timeout: float = 30.0,
    ) -> ScriptedReply:
        del timeout  # a scripted answer is there at once
        if self.down:
            raise HubUnreachable(url=url, problem="scripted: the network is down")
        data = body if isinstance(body, bytes) else b"".join(body or ())
        lowered = {key.lower(): value for key, value in (headers or {}).items()}
        request = Request(method=method, url=url, headers=lowered, body=data)
        self.requests.append(request)
        handler = self._handler(request)
        return ScriptedReply(url, handler(request) if handler else Answer(status=404))

    def _handler(self, request: Request) -> Handler | None:
        fitting = [
            (len(prefix), handler)
            for (method, prefix), handler in self.routes.items()
            if method == request.method and request.path.startswith(prefix)
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
