# SPDX-License-Identifier: Apache-2.0
"""The device's durable queue of results, events and reports: SQLite in WAL mode, every commit synced.

- `put` returns when the reports survive a power cut. Sequence numbers only grow, also across deletion and restart.
- The hub takes a batch any number of times; `forget` deletes what it acknowledged. So: at least once, and nothing twice there.
- Sequences count within this database, which has an identity: one that replaces it, beginning at 1 again, has another.
- A queue that reached its limit drops the oldest figures and results, counts them, and never a workload or history report.
- Safe from several threads: one connection, one lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from skerry.agent.state import UNREADABLE
from skerry.errors import StateDamaged, StorageError
from skerry.wire.v1.report import Body, FiguresReport, Report, ResultReport, TrialReport

_log = logging.getLogger(__name__)

ROW_LIMIT = 500_000
_DROPPED_AT_ONCE = 1_000

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    droppable INTEGER NOT NULL,
    body BLOB NOT NULL
)""",
    """CREATE TABLE IF NOT EXISTS history (
    n INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
)""",
    """CREATE TABLE IF NOT EXISTS emitted (
    workload TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY) WITHOUT ROWID",
)
_IS_NEW = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'outbox')"
_NAME_IT = "INSERT INTO identity (name) VALUES (lower(hex(randomblob(16))))"

_body = msgspec.json.Decoder(Body)


class Transaction:
    """Rows that become durable together. Only valid inside `Outbox.transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.added = 0
        self.last = 0

    def put(self, at: float, body: Body) -> int:
        """The sequence number given to the report."""
        droppable = isinstance(body, FiguresReport | ResultReport) or (
            isinstance(body, TrialReport) and not body.finished
        )
        cursor = self.connection.execute(
            "INSERT INTO outbox (at, droppable, body) VALUES (?, ?, ?)", (at, droppable, msgspec.json.encode(body))
        )
        self.added += 1
        self.last = cursor.lastrowid or 0
        return self.last


class Outbox:
    def __init__(self, path: Path, *, row_limit: int = ROW_LIMIT) -> None:
        """Opens or makes the database. Raises StorageError, StateDamaged."""
        self.path = path
        self._lock = threading.RLock()
        self._limit = row_limit
        self.fresh = threading.Event()  # set whenever something was put
        self.dropped = 0  # since the agent started
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._wrapped():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA journal_size_limit=4194304")
            self.identity = self._prepare()  # empty for one that a version made which gave none
            self._length = int(self._connection.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def _prepare(self) -> str:
        """Make what is missing; a database made here and now gets its identity in the same transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        is_new = self._connection.execute(_IS_NEW).fetchone()[0]
        for statement in (*_SCHEMA, *([_NAME_IT] if is_new else [])):
            self._connection.execute(statement)
        self._connection.execute("COMMIT")
        found = self._connection.execute("SELECT name FROM identity").fetchone()
        return str(found[0]) if found else ""

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __len__(self) -> int:
        return self._length

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All or nothing, durable when the block is left. Raises StorageError."""
        with self._lock, self._wrapped():
            self._connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self._connection)
            try:
                yield transaction
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._length += transaction.added
        if transaction.added:
            self._make_room()
            self.fresh.set()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._wrapped():
            yield self._connection

    def put(self, reports: Iterable[tuple[float, Body]]) -> int:
        """One durable batch of (time, report); the last sequence number."""
        with self.transaction() as transaction:
            for at, body in reports:
                transaction.put(at, body)
        return transaction.last

    def batch(self, *, rows: int = 500, size: int = 512 * 1024) -> tuple[Report, ...]:
        """The oldest reports: at most `rows`, and about `size` bytes; empty when there is nothing to send.

        They end where numbers are missing because reports were dropped: the hub takes what lies behind such a gap only
        from a batch that begins there. A report that cannot be read, as one of another version, is dropped: it must not
        hold up what lies behind it.
        """
        reports: list[Report] = []
        unreadable: list[int] = []
        total = 0
        with self.reading() as connection:
            for seq, at, body in connection.execute("SELECT seq, at, body FROM outbox ORDER BY seq LIMIT ?", (rows,)):
                total += len(body)
                if reports and (total > size or seq != reports[-1].seq + 1):
                    break
                try:
                    reports.append(Report(seq=seq, at=at, body=_body.decode(body)))
                except UNREADABLE as error:
                    _log.error("report dropped seq=%d error=%s", seq, error)
                    unreadable.append(seq)
            for seq in unreadable:
                self._length -= connection.execute("DELETE FROM outbox WHERE seq = ?", (seq,)).rowcount
                self.dropped += 1
        return tuple(reports)

    def forget(self, through: int) -> int:
        """Delete what is stored elsewhere: every report up to and including `through`. Returns how many."""
        with self._lock, self._wrapped():
            gone = self._connection.execute("DELETE FROM outbox WHERE seq <= ?", (through,)).rowcount
            self._length -= gone
        return gone

    def _make_room(self) -> None:
        while self._length > self._limit:
            with self._lock, self._wrapped():
                gone = self._connection.execute(
                    "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE droppable ORDER BY seq LIMIT ?)",
                    (max(_DROPPED_AT_ONCE, self._length - self._limit),),
                ).rowcount
                self._length -= gone
                self.dropped += gone
            if not gone:
                return

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            kind = StorageError if isinstance(error, sqlite3.OperationalError) else StateDamaged
            raise kind(path=str(self.path), problem=str(error)) from error
