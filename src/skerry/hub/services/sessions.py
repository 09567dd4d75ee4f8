# SPDX-License-Identifier: Apache-2.0
"""From a device's proof to an access token, and from an access token to the device."""

from __future__ import annotations

from typing import Protocol

from skerry.effects import Clock
from skerry.errors import NotFound, Unauthenticated
from skerry.hub.domain.devices import Device
from skerry.hub.services.lookup import DeviceLookup
from skerry.hub.services.presence import Presence
from skerry.hub.services.tokens import AccessTokens, check_assertion, claimed_device
from skerry.hub.store.interface import AccessStore, DeviceStore
from skerry.wire.v1.device import TokenReply

_REFUSED = "the client assertion is not accepted"


class _Store(DeviceStore, AccessStore, Protocol):
    pass


class Sessions:
    def __init__(self, store: _Store, clock: Clock, *, tokens: AccessTokens, audience: str, presence: Presence) -> None:
        self._store = store
        self._clock = clock
        self._tokens = tokens
        self._audience = audience
        self._presence = presence
        self._lookup = DeviceLookup(store)

    async def exchange(self, assertion: str) -> TokenReply:
        """RFC 7523: a fresh client assertion for an access token. Each assertion is good for once, on all replicas.

        Raises Unauthenticated, in the same words whether the device is unknown, revoked or not who it says it is.
        """
        now = self._clock.now()
        device = await self._known(claimed_device(assertion))
        proven = check_assertion(assertion, public_key=device.public_key, audience=self._audience, now=now)
        if proven.device_id != device.id:
            raise Unauthenticated(problem=_REFUSED)
        if not await self._store.use_once(f"assertion/{device.id}/{proven.jti}", until=proven.expires, now=now):
            raise Unauthenticated(problem=_REFUSED)
        self._presence.note(device.id)
        return self._tokens.issue(device.id, now=now)

    async def device(self, access_token: str) -> Device:
        """The device behind an access token, as it is now: a revoked one is refused at once, not at expiry."""
        device_id = self._tokens.device_of(access_token, now=self._clock.now())
        device = await self.still_welcome(device_id)
        self._presence.note(device_id)
        return device

    async def still_welcome(self, device_id: str) -> Device:
        """Raises Unauthenticated when the device was revoked or deleted."""
        try:
            device = await self._lookup.device(device_id)
        except NotFound as error:
            raise Unauthenticated(problem="the device is not enrolled here") from error
        if device.revoked is not None:
            raise Unauthenticated(problem="the device is revoked")
        return device

    async def _known(self, device_id: str) -> Device:
        try:
            return await self.still_welcome(device_id)
        except Unauthenticated as error:
            raise Unauthenticated(problem=_REFUSED) from error
