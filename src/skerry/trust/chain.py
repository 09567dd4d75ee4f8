# SPDX-License-Identifier: Apache-2.0
"""The history of a device: entries chained by hash, each signed by the device's own key.

Canonical bytes of an entry: one JSON object, UTF-8, no white space, with exactly these keys in this order
    {"schema","device","n","at","kind","fields","previous"}
`schema` is "skerry/history/v1"; `at` is always written as a float; the keys of `fields` are sorted. Then
    hash      = "sha256:" + hex SHA-256 of the canonical bytes
    signature = Ed25519 over the DSSE pre-authentication encoding of (HISTORY_TYPE, canonical bytes)
`n` starts at 1 and `previous` is the hash of entry n - 1, empty for the first. Removing the newest entries leaves a shorter valid
chain: only someone who knows the newest hash (the hub, an auditor's note) can see it, so `verify_chain` takes it as `head`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import sha256

import msgspec
from msgspec import Struct

from skerry.trust import dsse
from skerry.wire.v1.report import HistoryEntry

HISTORY_TYPE = "application/vnd.skerry.history.v1+json"
_SCHEMA = "skerry/history/v1"
_INT_LIMIT = 2**63

Value = str | int | float | bool


class ChainProblem(StrEnum):
    ALTERED = "altered"  # the content does not have the hash it claims
    BAD_SIGNATURE = "bad-signature"  # the device's key did not sign it (or it is another device's entry)
    GAP = "gap"  # a number is missing
    REORDERED = "reordered"  # a number comes twice or too late
    UNLINKED = "unlinked"  # it does not point to the entry before it
    CUT = "cut"  # the chain ends before the head that is known


class Intact(Struct, frozen=True, kw_only=True):
    head: str  # hash of the newest entry, empty when there is none
    count: int


class Broken(Struct, frozen=True, kw_only=True):
    n: int  # the first entry that cannot be believed
    problem: ChainProblem


class _Content(Struct, frozen=True, kw_only=True):
    schema: str
    device: str
    n: int
    at: float
    kind: str
    fields: dict[str, Value]
    previous: str


def canonical_bytes(entry: HistoryEntry, *, device_id: str) -> bytes:
    """What is hashed and signed; `entry.hash` and `entry.signature` are not part of it."""
    content = _Content(
        schema=_SCHEMA,
        device=device_id,
        n=entry.n,
        at=float(entry.at),
        kind=entry.kind,
        fields=entry.fields,
        previous=entry.previous,
    )
    # "deterministic" sorts mapping keys and keeps the declared order of struct fields.
    return msgspec.json.encode(content, order="deterministic")


def next_entry(
    previous: HistoryEntry | None,
    *,
    device_id: str,
    at: float,
    kind: str,
    fields: Mapping[str, Value],
    private_key: dsse.Signs,
) -> HistoryEntry:
    """The entry after `previous`. Raises ValueError for a number JSON cannot carry back unchanged."""
    draft = HistoryEntry(
        n=1 if previous is None else previous.n + 1,
        at=float(at),
        kind=kind,
        fields={name: _storable(name, value) for name, value in fields.items()},
        previous="" if previous is None else previous.hash,
        hash="",
        signature=b"",
    )
    content = canonical_bytes(draft, device_id=device_id)
    signature = private_key.sign(dsse.pae(HISTORY_TYPE, content))
    return msgspec.structs.replace(draft, hash=_hash(content), signature=signature)


def check_entry(
    previous: HistoryEntry | None, entry: HistoryEntry, *, device_id: str, public_key: bytes
) -> ChainProblem | None:
    """What is wrong with `entry` as the one after `previous` (None: as the first); None when nothing is."""
    expected = 1 if previous is None else previous.n + 1
    if entry.n != expected:
        return ChainProblem.GAP if entry.n > expected else ChainProblem.REORDERED
    if entry.previous != ("" if previous is None else previous.hash):
        return ChainProblem.UNLINKED
    content = canonical_bytes(entry, device_id=device_id)
    if entry.hash != _hash(content):
        return ChainProblem.ALTERED
    if not dsse.valid(public_key, entry.signature, dsse.pae(HISTORY_TYPE, content)):
        return ChainProblem.BAD_SIGNATURE
    return None


def verify_chain(
    entries: Iterable[HistoryEntry], *, device_id: str, public_key: bytes, head: str = ""
) -> Intact | Broken:
    """Check a whole history, oldest first. `head`, when known from elsewhere, must be the hash of the newest entry."""
    previous: HistoryEntry | None = None
    for entry in entries:
        problem = check_entry(previous, entry, device_id=device_id, public_key=public_key)
        if problem is not None:
            return Broken(n=1 if previous is None else previous.n + 1, problem=problem)
        previous = entry
    newest, count = ("", 0) if previous is None else (previous.hash, previous.n)
    if head and newest != head:
        return Broken(n=count + 1, problem=ChainProblem.CUT)
    return Intact(head=newest, count=count)


def _hash(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _storable(name: str, value: Value) -> Value:
    unbounded = isinstance(value, int) and not -_INT_LIMIT <= value < _INT_LIMIT
    if unbounded or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"history field {name}: {value!r} cannot be recorded")
    return value
