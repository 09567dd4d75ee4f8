# SPDX-License-Identifier: Apache-2.0
"""How the TUF client gets its bytes: over effects.Http, or from the verified files of an earlier refresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from skerry.effects import Clock, Files, Http
from skerry.errors import HubUnreachable

_OK = 200
_NOT_FOUND = 404


def _no_headers() -> Mapping[str, str]:
    return {}


class HttpFetcher(FetcherInterface):
    """Streams a file in chunks. The caller bounds its length, this class its duration.

    `headers` is asked before every request, so that a short-lived token is fresh. RoadErrors pass through unchanged.
    """

    def __init__(
        self,
        http: Http,
        clock: Clock,
        *,
        headers: Callable[[], Mapping[str, str]] = _no_headers,
        timeout: float = 30.0,
        max_seconds: float = 300.0,
    ) -> None:
        self._http = http
        self._clock = clock
        self._headers = headers
        self._timeout = timeout
        self._max_seconds = max_seconds

    def _fetch(self, url: str) -> Iterator[bytes]:
        deadline = self._clock.monotonic() + self._max_seconds
        with self._http.request("GET", url, headers=self._headers(), timeout=self._timeout) as reply:
            if reply.status != _OK:
                raise DownloadHTTPError(f"{url} answered {reply.status}", reply.status)
            for chunk in reply.chunks():
                if self._clock.monotonic() > deadline:
                    raise SlowRetrievalError(f"{url} took more than {self._max_seconds:.0f} s")
                yield chunk


class LocalFetcher(FetcherInterface):
    """Answers from the client's own metadata folder: the timestamp is what it was, and there is no newer root."""

    def __init__(self, files: Files, metadata_dir: Path) -> None:
        self._files = files
        self._metadata_dir = metadata_dir

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name.endswith(".root.json"):
            # How the client learns that none is newer.
            raise DownloadHTTPError(f"{name} is not on this device", _NOT_FOUND)
        data = self._files.read(self._metadata_dir / name) if name == "timestamp.json" else None
        if data is None:
            raise HubUnreachable(url=url, problem="it was not asked, and this device has not kept that file")
        yield data
