# SPDX-License-Identifier: Apache-2.0
"""The device's history: what happened to it, hash-chained and signed (`trust.chain`), beside the outbox in one database.

- An entry and the reports that tell the hub of it become durable in one transaction: neither exists without the other.
- `emit` is idempotent per workload and record revision, so what a record carries as `pending` may be emitted after any crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from skerry.agent.outbox import Outbox, Transaction
from skerry.agent.state import UNREADABLE, WorkloadRecord
from skerry.errors import StateDamaged
from skerry.trust.chain import Broken, Intact, Value, next_entry, verify_chain
from skerry.trust.dsse import Signs
from skerry.wire.v1.report import Body, HistoryEntry, HistoryReport

_entry = msgspec.json.Decoder(HistoryEntry)


class History:
    def __init__(self, outbox: Outbox, *, device_id: str, private_key: Signs) -> None:
        self._outbox = outbox
        self._device_id = device_id
        self._private_key = private_key

    def append(self, kind: str, *, at: float, fields: Mapping[str, Value], reports: Iterable[Body] = ()) -> None:
        """Durable when it returns, and on its way to the hub. Raises StorageError."""
        with self._outbox.transaction() as transaction:
            self._append(transaction, kind, at, fields)
            for report in reports:
                transaction.put(at, report)

    def emit(self, record: WorkloadRecord) -> bool:
        """Bring a record's `pending` into history and outbox, once. False when that had happened before."""
        if not record.pending:
            return False
        with self._outbox.transaction() as transaction:
            found = transaction.connection.execute(
                "SELECT revision FROM emitted WHERE workload = ?", (record.name,)
            ).fetchone()
            if found and found[0] == record.revision:
                return False
            for pending in record.pending:
                if pending.kind:
                    self._append(transaction, pending.kind, pending.at, pending.fields)
                transaction.put(pending.at, pending.report)
            transaction.connection.execute(
                "INSERT OR REPLACE INTO emitted (workload, revision) VALUES (?, ?)", (record.name, record.revision)
            )
        return True

    def _append(self, transaction: Transaction, kind: str, at: float, fields: Mapping[str, Value]) -> None:
        row = transaction.connection.execute("SELECT entry FROM history ORDER BY n DESC LIMIT 1").fetchone()
        entry = next_entry(
            self._decode(row[0]) if row else None,
            device_id=self._device_id,
            at=at,
            kind=kind,
            fields=fields,
            private_key=self._private_key,
        )
        transaction.connection.execute(
            "INSERT INTO history (n, entry) VALUES (?, ?)", (entry.n, msgspec.json.encode(entry))
        )
        transaction.put(at, HistoryReport(entry=entry))

    def workloads(self) -> frozenset[str]:
        """Every name something was ever emitted of."""
        with self._outbox.reading() as connection:
            return frozenset(str(row[0]) for row in connection.execute("SELECT workload FROM emitted"))

    def entries(self, *, page: int = 500) -> Iterator[HistoryEntry]:
        """Oldest first, read page by page."""
        last = 0
        while True:
            with self._outbox.reading() as connection:
                rows = connection.execute(
                    "SELECT entry FROM history WHERE n > ? ORDER BY n LIMIT ?", (last, page)
                ).fetchall()
            if not rows:
                return
            for (data,) in rows:
                entry = self._decode(data)
                last = max(last + 1, entry.n)
                yield entry

    def _decode(self, data: bytes) -> HistoryEntry:
        try:
            return _entry.decode(data)
        except UNREADABLE as error:
            raise StateDamaged(path=str(self._outbox.path), problem=f"an entry of its history: {error}") from error

    def verify(self, public_key: bytes) -> Intact | Broken:
        """The whole chain, from the first entry. Raises StateDamaged when it cannot even be read."""
        return verify_chain(self.entries(), device_id=self._device_id, public_key=public_key)
