# SPDX-License-Identifier: Apache-2.0
"""The operator API as typed calls. Every refusal of the hub comes back as the error class it was raised as."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from skerry import errors
from skerry.cli.revive import refusal
from skerry.effects import Http, Reply
from skerry.wire.v1.operator import (
    AuditEntry,
    DevicePatch,
    DeviceView,
    EnrolmentToken,
    EnrolmentTokenRequest,
    FleetSpec,
    FleetView,
    History,
    ModelView,
    Page,
    Role,
    RolloutEvent,
    RolloutSpec,
    RolloutView,
    StoredResult,
    Summary,
    UserRequest,
    UserToken,
    UserView,
)
from skerry.wire.v1.report import Report

T = TypeVar("T")

_REPLY_LIMIT = 64 * 1024 * 1024
_PAGE = "500"
_JSON = "application/json"
_REFUSED = 400
_NOT_FOUND = 404


class Mark(NamedTuple):
    """How far a collection was read: the page that was the last, and how much of it was there."""

    after: str
    known: int


class HubClient:
    """Synchronous; one instance per hub and token. Every call may raise RoadError, HubError or UnexpectedReply."""

    def __init__(self, http: Http, url: str, token: str) -> None:
        self._http = http
        self.url = url.rstrip("/")
        self._token = token

    # --- reading -------------------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        return self._get("summary", Summary)

    def devices(self, selector: Mapping[str, str] | None = None) -> list[DeviceView]:
        """By name."""
        wanted = ",".join(f"{key}={value}" for key, value in (selector or {}).items())
        found = self._all("devices", DeviceView, selector=wanted, limit=_PAGE)
        return sorted(found, key=lambda device: (device.name, device.id))

    def device(self, name: str) -> DeviceView:
        """By id, else by name. Raises NotFound, or Conflict when two devices share the name."""
        try:
            return self._get(f"devices/{_part(name)}", DeviceView)
        except errors.NotFound:
            found = [device for device in self.devices() if device.name == name]
        if not found:
            raise errors.NotFound(kind="device", name=name)
        if len(found) > 1:
            ids = ", ".join(device.id for device in found)
            raise errors.Conflict(kind="device", name=name, problem=f"is the name of several: say which id of {ids}")
        return found[0]

    def history(self, device_id: str) -> History:
        return self._get(f"devices/{_part(device_id)}/history", History)

    def results(self, device_id: str, *, limit: int, after: str = "") -> Page[StoredResult]:
        """One page, oldest first."""
        return self._get(f"devices/{_part(device_id)}/results", Page[StoredResult], limit=str(limit), after=after)

    def newest_results(self, device_id: str, *, limit: int) -> list[StoredResult]:
        """The last `limit`, newest last."""
        every = self._all(f"devices/{_part(device_id)}/results", StoredResult, limit=_PAGE)
        return list(deque(every, maxlen=limit))

    def reports(self, device_id: str, mark: Mark | None = None) -> tuple[list[Report], Mark]:
        """Oldest first, what came after `mark`; and the mark from which to ask for what comes next."""
        found: list[Report] = []
        after, known = mark or Mark("", 0)
        while True:
            page = self._get(f"devices/{_part(device_id)}/reports", Page[Report], limit=_PAGE, after=after)
            found.extend(page.items[known:])
            if not page.after:
                return found, Mark(after, len(page.items))
            after, known = page.after, 0

    def fleets(self) -> list[FleetView]:
        return list(self._all("fleets", FleetView))

    def fleet(self, name: str) -> FleetView:
        return self._get(f"fleets/{_part(name)}", FleetView)

    def models(self) -> list[ModelView]:
        return list(self._all("models", ModelView))

    def rollouts(self) -> list[RolloutView]:
        return list(self._all("rollouts", RolloutView, limit=_PAGE))

    def newest_rollout(self) -> RolloutView | None:
        newest = self._get("rollouts", Page[RolloutView], limit="1").items
        return newest[0] if newest else None

    def rollout(self, rollout_id: str) -> RolloutView:
        return self._get(f"rollouts/{_part(rollout_id)}", RolloutView)

    def rollout_events(self, rollout_id: str) -> list[RolloutEvent]:
        return list(self._all(f"rollouts/{_part(rollout_id)}/events", RolloutEvent, limit=_PAGE))

    def newest_audit(self, *, limit: int) -> list[AuditEntry]:
        """The last `limit`, newest last."""
        return list(deque(self._all("audit", AuditEntry, limit=_PAGE), maxlen=limit))

    def users(self) -> list[UserView]:
        return list(self._all("users", UserView))

    def date(self) -> str:
        """The hub's clock, as its Date header says it; empty when it sends none. Needs no token."""
        with self._open("GET", "/healthz", timeout=10.0) as reply:
            raw = reply.body(limit=_REPLY_LIMIT)
            if reply.status >= _REFUSED:
                raise refusal(self.url, reply.status, raw)
            return reply.headers.get("date", "")

    # --- changing ------------------------------------------------------------------------------------------------------

    def put_fleet(self, name: str, spec: FleetSpec) -> FleetView:
        return self._send("PUT", f"fleets/{_part(name)}", spec, FleetView)

    def patch_device(self, device_id: str, patch: DevicePatch) -> DeviceView:
        return self._send("PATCH", f"devices/{_part(device_id)}", patch, DeviceView)

    def make_enrolment_token(self, request: EnrolmentTokenRequest) -> EnrolmentToken:
        return self._send("POST", "enrolment-tokens", request, EnrolmentToken)

    def start_rollout(self, spec: RolloutSpec) -> RolloutView:
        return self._send("POST", "rollouts", spec, RolloutView)

    def steer_rollout(self, rollout_id: str, action: str) -> RolloutView:
        """`action` is pause, resume or undo."""
        raw = self._call("POST", f"/api/v1/rollouts/{_part(rollout_id)}/{action}")
        return self._decode(raw, RolloutView, action)

    def revoke_device(self, device_id: str) -> None:
        self._call("POST", f"/api/v1/devices/{_part(device_id)}/revoke")

    def delete_device(self, device_id: str) -> None:
        self._call("DELETE", f"/api/v1/devices/{_part(device_id)}")

    def add_user(self, name: str, role: Role) -> UserToken:
        return self._send("POST", "users", UserRequest(name=name, role=role), UserToken)

    def delete_user(self, name: str) -> None:
        self._call("DELETE", f"/api/v1/users/{_part(name)}")

    # --- catalogue and blobs -------------------------------------------------------------------------------------------

    def role_metadata(self, role: str) -> bytes:
        """Signed TUF metadata of a role, byte for byte as the catalogue serves it."""
        return self._call("GET", f"/api/v1/catalogue/roles/{_part(role)}")

    def publish_role(self, role: str, metadata: bytes) -> None:
        self._call("POST", f"/api/v1/catalogue/roles/{_part(role)}", body=metadata, kind=_JSON)

    def has_blob(self, digest: str) -> bool:
        with self._open("HEAD", f"/api/v1/blobs/{digest}") as reply:
            if reply.status == _NOT_FOUND:
                return False
            if reply.status >= _REFUSED:
                raise refusal(self.url, reply.status, b"")
            return True

    def put_blob(self, digest: str, body: Iterator[bytes], *, size: int) -> None:
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        with self._open("PUT", f"/api/v1/blobs/{digest}", headers=headers, body=body, timeout=300.0) as reply:
            raw = reply.body(limit=_REPLY_LIMIT)
            if reply.status >= _REFUSED:
                raise refusal(self.url, reply.status, raw)

    # --- the wire ------------------------------------------------------------------------------------------------------

    def _get(self, path: str, kind: type[T], **query: str) -> T:
        return self._decode(self._call("GET", f"/api/v1/{path}", query=query), kind, path)

    def _send(self, method: str, path: str, message: msgspec.Struct, kind: type[T]) -> T:
        raw = self._call(method, f"/api/v1/{path}", body=msgspec.json.encode(message), kind=_JSON)
        return self._decode(raw, kind, path)

    def _all(self, path: str, kind: type[T], **query: str) -> Iterator[T]:
        """Every item of a paged collection."""
        page: Page[T] = self._get(path, Page[kind], **query)  # type: ignore[valid-type]
        yield from page.items
        while page.after:
            page = self._get(path, Page[kind], **{**query, "after": page.after})  # type: ignore[valid-type]
            yield from page.items

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        kind: str = "",
    ) -> bytes:
        given = {key: value for key, value in (query or {}).items() if value}
        target = path + ("?" + urlencode(given) if given else "")
        with self._open(method, target, headers={"content-type": kind} if kind else {}, body=body) as reply:
            raw = reply.body(limit=_REPLY_LIMIT)
            if not 200 <= reply.status < 300:  # noqa: PLR2004 - HTTP's success range
                raise refusal(self.url + path, reply.status, raw)
            return raw

    def _open(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
        timeout: float = 30.0,
    ) -> Reply:
        credentials = {"authorization": f"Bearer {self._token}"} if self._token else {}
        return self._http.request(
            method, self.url + path, headers={**credentials, **(headers or {})}, body=body, timeout=timeout
        )

    def _decode(self, raw: bytes, kind: type[T], path: str) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError as error:
            raise errors.UnexpectedReply(url=f"{self.url} ({path})", status=200, problem=str(error)) from error


def _part(name: str) -> str:
    """One segment of a path, whatever the user typed."""
    return quote(name, safe="")
