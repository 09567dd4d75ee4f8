# SPDX-License-Identifier: Apache-2.0
"""How a device becomes ours: a one-time token for an identity whose private half never leaves the device."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest

from skerry.effects import Clock, Entropy
from skerry.errors import BadRequest, EnrolmentRefused, NotFound
from skerry.hub.domain.access import AuditRecord, Note
from skerry.hub.domain.devices import Device, EnrolmentTokenRecord, NewDevice
from skerry.hub.services.labels import checked_labels, checked_name
from skerry.hub.services.tokens import new_token, token_hash
from skerry.hub.store.interface import DeviceStore
from skerry.wire.v1.device import EnrolReply, EnrolRequest
from skerry.wire.v1.operator import EnrolmentToken, EnrolmentTokenRequest

MAX_TTL = 90 * 86_400.0

_PUBLIC_KEY_BYTES = 32
_TOKEN_BYTES = 32
_ID_BYTES = 10


@dataclass(frozen=True, kw_only=True)
class HubFacts:
    """What every device is told at enrolment."""

    audience: str
    poll_seconds: float


class Enrolment:
    """`newest_root` gives the catalogue's root metadata: the device's bootstrap for good."""

    def __init__(
        self,
        store: DeviceStore,
        clock: Clock,
        entropy: Entropy,
        *,
        facts: HubFacts,
        newest_root: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._facts = facts
        self._newest_root = newest_root

    async def make_token(self, request: EnrolmentTokenRequest, *, by: str, note: Note) -> EnrolmentToken:
        """Raises BadRequest. The token itself is in this answer and nowhere else."""
        checked_labels(request.labels)
        if not 0 < request.ttl_seconds <= MAX_TTL:
            raise BadRequest(problem=f"ttl_seconds: above 0 and at most {MAX_TTL:.0f}")
        token = new_token("ske", self._entropy.token(_TOKEN_BYTES))
        now = self._clock.now()
        expires = now + request.ttl_seconds
        await self._store.add_enrolment_token(
            EnrolmentTokenRecord(
                token_hash=token_hash(token), labels=request.labels, created=now, created_by=by, expires=expires
            ),
            note=note,
        )
        return EnrolmentToken(token=token, expires=expires)

    async def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Raises BadRequest for a malformed request, EnrolmentRefused for a token that is unknown, used or expired.

        A device whose answer was lost may ask again while the token lives: with the same token and the same key it is the
        same device.
        """
        checked_name("device", request.name)
        checked_labels(request.labels)
        if len(request.public_key) != _PUBLIC_KEY_BYTES or not any(request.public_key):
            raise BadRequest(problem="public_key: 32 bytes of an Ed25519 key, as base64")
        root = await self._newest_root()
        now = self._clock.now()
        device_id = f"d-{self._entropy.token(_ID_BYTES).hex()}"
        wanted = NewDevice(
            id=device_id,
            name=request.name,
            labels=request.labels,
            public_key=request.public_key,
            capabilities=request.capabilities,
            enrolled=now,
        )
        hashed = token_hash(request.token)
        try:
            device = await self._store.enrol(wanted, token_hash=hashed, now=now, note=_enrolled(device_id, now))
        except EnrolmentRefused:
            known = await self._enrolled_before(hashed, request.public_key, now)
            if known is None:
                raise
            device = known
        return EnrolReply(
            device_id=device.id,
            factory_root=root,
            audience=self._facts.audience,
            poll_seconds=self._facts.poll_seconds,
        )

    async def _enrolled_before(self, hashed: bytes, public_key: bytes, now: float) -> Device | None:
        """The device this very token and key made; None also when it was revoked or deleted since."""
        token = await self._store.enrolment_token(hashed)
        if token is None or not token.device_id or now >= token.expires:
            return None
        try:
            device = await self._store.device(token.device_id)
        except NotFound:
            return None
        same = compare_digest(device.public_key, public_key)
        return device if same and device.revoked is None else None


def _enrolled(device_id: str, now: float) -> Note:
    subject = f"devices/{device_id}"
    return Note(
        record=AuditRecord(at=now, actor=device_id, role="device", action="enrol", subject=subject, outcome="ok")
    )
