# SPDX-License-Identifier: Apache-2.0
"""People (and their scripts): one name, one role, one token each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from skerry.effects import Clock, Entropy
from skerry.errors import BadRequest, Conflict, Unauthenticated
from skerry.hub.domain.access import AuditRecord, Note, User
from skerry.hub.services.tokens import new_token, same_hash, token_hash
from skerry.hub.store.interface import AccessStore
from skerry.wire.v1.operator import Role, UserRequest, UserToken, UserView

FIRST_ADMIN = "admin"

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_TOKEN_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who is asking, once proven."""

    name: str
    role: Role


class People:
    def __init__(self, store: AccessStore, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def authenticate(self, token: str) -> Person:
        """Raises Unauthenticated."""
        wanted = token_hash(token)
        user = await self._store.user_by_token(wanted)
        if user is None or not same_hash(user.token_hash, wanted):
            raise Unauthenticated(problem="the token is not known")
        return Person(name=user.name, role=user.role)

    async def first_admin(self, *, replace: bool = False) -> UserToken | None:
        """The administrator of a hub that has no users yet; None when there are some, or another replica was faster.

        With `replace`, the user `admin` gets a new token: the way back in for who lost it and owns the machine.
        """
        if not replace and await self._store.users():
            return None
        now = self._clock.now()
        subject = f"users/{FIRST_ADMIN} as {Role.ADMIN}"
        owner = AuditRecord(at=now, actor="hub", role="none", action="make a user", subject=subject, outcome="ok")
        try:
            return await self._add(FIRST_ADMIN, Role.ADMIN, replace=replace, note=Note(record=owner))
        except Conflict:
            return None

    async def add(self, request: UserRequest, *, note: Note) -> UserToken:
        """Raises BadRequest, Conflict when the name is taken: a second role for a name is never added to the first."""
        if not _NAME.fullmatch(request.name):
            raise BadRequest(problem="a user's name has up to 64 of a-z 0-9 . _ @ - and starts with a letter or digit")
        return await self._add(request.name, request.role, replace=False, note=note)

    async def _add(self, name: str, role: Role, *, replace: bool, note: Note) -> UserToken:
        token = new_token("sku", self._entropy.token(_TOKEN_BYTES))
        user = User(name=name, role=role, token_hash=token_hash(token), created=self._clock.now())
        await self._store.add_user(user, replace=replace, note=note)
        return UserToken(name=user.name, role=user.role, token=token)

    async def all(self) -> tuple[UserView, ...]:
        users = await self._store.users()
        return tuple(UserView(name=user.name, role=user.role, created=user.created) for user in users)

    async def remove(self, name: str, *, note: Note) -> None:
        """Raises NotFound; Conflict for the last administrator, without whom nobody could be let in again."""
        await self._store.delete_user(name, note=note)
