# SPDX-License-Identifier: Apache-2.0
"""The road to the hub: every request an agent makes, over effects.Http.

- One access token, fetched when needed, used until a minute before it expires, thrown away when the hub says 401.
- The hub's `Date` corrects the clock for client assertions only; what trust decides never sees it.
- Refusals of the hub become the HubError of their code; bad roads stay RoadError and may be tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from skerry.agent.identity import Identity
from skerry.effects import Clock, Entropy, Http, Reply
from skerry.errors import (
    BadRequest,
    EnrolmentRefused,
    HubError,
    NotFound,
    RateLimited,
    Unauthenticated,
    UnexpectedReply,
)
from skerry.wire.v1.device import CLIENT_ASSERTION_TYPE, EnrolReply, EnrolRequest, ErrorBody, TokenReply
from skerry.wire.v1.report import ReportAck, ReportBatch

T = TypeVar("T")

REPLY_LIMIT = 4 * 1024 * 1024
TOKEN_MARGIN = 60.0
_OK, _CREATED, _PARTIAL, _NOT_MODIFIED, _UNAUTHENTICATED = 200, 201, 206, 304, 401


class Fetched(Struct, frozen=True, kw_only=True):
    """An assignment envelope as the hub sent it, unverified."""

    envelope: bytes
    etag: str


class Backoff:
    """Exponential with full jitter: anything between 0 and the current ceiling, so a fleet does not come back in step."""

    def __init__(self, entropy: Entropy, *, base: float = 1.0, ceiling: float = 60.0) -> None:
        self._entropy = entropy
        self._base = base
        self._ceiling = ceiling
        self.failures = 0

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(self._ceiling, self._base * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return ceiling * int.from_bytes(self._entropy.token(4), "big") / 0xFFFFFFFF


def enrol(http: Http, hub: str, request: EnrolRequest) -> EnrolReply:
    """Raises EnrolmentRefused, RoadError."""
    url = f"{hub}/device/v1/enroll"
    with http.request("POST", url, headers=_JSON, body=msgspec.json.encode(request)) as reply:
        if reply.status != _CREATED:
            raise _refusal(reply, url)
        return _decode(reply, url, EnrolReply)


class HubRoad:
    def __init__(
        self,
        http: Http,
        clock: Clock,
        entropy: Entropy,
        *,
        hub: str,
        identity: Identity,
        device_id: str,
        audience: str,
    ) -> None:
        self._http = http
        self._clock = clock
        self._entropy = entropy
        self._base = f"{hub}/device/v1"
        self._identity = identity
        self._device_id = device_id
        self._audience = audience
        self._lock = threading.Lock()
        self._token = ""
        self._token_until = 0.0
        self.clock_offset = 0.0  # seconds by which the hub's clock is ahead, as it says itself

    @property
    def catalogue_url(self) -> str:
        return f"{self._base}/catalogue"

    def assignment(self, *, etag: str = "", wait: float = 0.0) -> Fetched | None:
        """The current assignment; None when it is the one `etag` names. The hub may take `wait` seconds to answer."""
        query = f"?wait={wait:g}" if wait else ""
        headers = {"if-none-match": etag} if etag else {}
        with self._get(f"/assignment{query}", headers, timeout=wait + 15.0) as reply:
            if reply.status == _NOT_MODIFIED:
                return None
            self._expect(reply, "/assignment", _OK)
            return Fetched(envelope=reply.body(limit=REPLY_LIMIT), etag=reply.headers.get("etag", ""))

    def report(self, batch: ReportBatch) -> ReportAck:
        body = msgspec.json.encode(batch)
        with self._authorised("POST", "/reports", _JSON, body) as reply:
            self._expect(reply, "/reports", _OK, _CREATED)
            return _decode(reply, f"{self._base}/reports", ReportAck)

    def blob(self, digest: str, *, offset: int = 0, etag: str = "") -> Reply:
        """The blob from `offset` on (206), or the whole of it (200) when the hub cannot continue. Close the reply."""
        headers = {"range": f"bytes={offset}-", "if-range": etag} if offset else {}
        reply = self._get(f"/blobs/{digest}", headers)
        try:
            self._expect(reply, f"/blobs/{digest}", _OK, _PARTIAL)
        except BaseException:
            reply.__exit__(None, None, None)
            raise
        return reply

    def _get(self, path: str, headers: Mapping[str, str], *, timeout: float = 60.0) -> Reply:
        return self._authorised("GET", path, headers, None, timeout=timeout)

    def _authorised(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, *, timeout: float = 60.0
    ) -> Reply:
        """One request; a second one with a new token when the first was refused for its token."""
        reply = self._send(method, path, headers, body, timeout=timeout)
        if reply.status == _UNAUTHENTICATED:
            reply.__exit__(None, None, None)
            self._forget_token()
            reply = self._send(method, path, headers, body, timeout=timeout)
        return reply

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, *, timeout: float) -> Reply:
        bearer = {"authorization": f"Bearer {self._access_token()}", **headers}
        return self._http.request(method, self._base + path, headers=bearer, body=body, timeout=timeout)

    def _access_token(self) -> str:
        with self._lock:
            if self._token and self._clock.monotonic() < self._token_until:
                return self._token
            reply = self._new_token()
            if reply is None:  # refused once: our clock may be off, and now the hub's is known
                reply = self._new_token()
            if reply is None:
                raise Unauthenticated(problem="the hub does not accept this device's key: revoked, or unknown there")
            self._token = reply.access_token
            self._token_until = self._clock.monotonic() + max(reply.expires_in - TOKEN_MARGIN, reply.expires_in / 2)
            return self._token

    def _new_token(self) -> TokenReply | None:
        url = f"{self._base}/token"
        assertion = self._identity.client_assertion(
            device_id=self._device_id,
            audience=self._audience,
            now=self._clock.now() + self.clock_offset,
            entropy=self._entropy,
        )
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": CLIENT_ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        with self._http.request("POST", url, headers=headers, body=urlencode(form).encode("ascii")) as reply:
            self._set_clock(reply)
            if reply.status == _UNAUTHENTICATED:
                return None
            self._expect(reply, "/token", _OK, _CREATED)
            return _decode(reply, url, TokenReply)

    def _set_clock(self, reply: Reply) -> None:
        stated = reply.headers.get("date", "")
        if stated:
            try:
                self.clock_offset = parsedate_to_datetime(stated).timestamp() - self._clock.now()
            except (ValueError, OverflowError):
                self.clock_offset = 0.0

    def _forget_token(self) -> None:
        with self._lock:
            self._token = ""

    def _expect(self, reply: Reply, path: str, *statuses: int) -> None:
        if reply.status not in statuses:
            raise _refusal(reply, self._base + path)


_JSON = {"content-type": "application/json"}
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)  # a hub must not end an agent with what it says
_BY_CODE = {kind.code: kind for kind in (BadRequest, EnrolmentRefused, NotFound, RateLimited, Unauthenticated)}


def _refusal(reply: Reply, url: str) -> HubError | UnexpectedReply:
    """The hub's own words as an error; UnexpectedReply when they are not the words of a hub."""
    data = reply.body(limit=REPLY_LIMIT)
    try:
        body = msgspec.json.decode(data, type=ErrorBody)
    except _UNREADABLE:
        return UnexpectedReply(url=url, status=reply.status, problem="not the body of a refusal")
    facts = {key: value for key, value in body.fields.items() if key not in {"detail", "self"}}
    kind = _BY_CODE.get(body.code)
    if kind is not None:
        try:
            return kind(**facts)
        except KeyError:  # another version's fields: its message still says it all
            pass
    return HubError(detail=f"{body.code}: {body.message}", **facts)


def _decode(reply: Reply, url: str, kind: type[T]) -> T:
    data = reply.body(limit=REPLY_LIMIT)
    try:
        return msgspec.json.decode(data, type=kind)
    except _UNREADABLE as error:
        raise UnexpectedReply(url=url, status=reply.status, problem=str(error)) from error
