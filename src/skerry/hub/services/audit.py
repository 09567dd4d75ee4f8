# SPDX-License-Identifier: Apache-2.0
"""Who asked the hub for what, and what came of it. Append-only."""

from __future__ import annotations

from skerry.effects import Clock
from skerry.hub.domain.access import AuditRecord
from skerry.hub.services.pages import page_of
from skerry.hub.store.documents import plain
from skerry.hub.store.interface import AccessStore
from skerry.wire.v1.operator import AuditEntry, Page

_SUBJECT_LIMIT = 200


class AuditLog:
    def __init__(self, store: AccessStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def record(self, *, actor: str, role: str, action: str, subject: str, outcome: str = "ok") -> AuditRecord:
        """What is to be noted now."""
        now, subject = self._clock.now(), plain(subject[:_SUBJECT_LIMIT])
        return AuditRecord(at=now, actor=actor, role=role, action=action, subject=subject, outcome=outcome)

    async def add(self, record: AuditRecord) -> None:
        await self._store.add_audit(record)

    async def page(self, *, limit: int, after: int) -> Page[AuditEntry]:
        entries = await self._store.audit(limit=limit, after=after)
        return page_of(entries, limit=limit, key=lambda entry: str(entry.n))
