# SPDX-License-Identifier: Apache-2.0
"""Workload records that are gone or damaged, told again by the device's own history. Pure.

History knows what was committed under a name, what failed there and on which port it answered. It does not know an attempt
that was under way: that one is made anew when the hub still wants it.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from skerry.agent.reconcile import LEARNED_NOTHING
from skerry.agent.state import Failure, Release, WorkloadRecord
from skerry.wire.v1.device import BundleRef
from skerry.wire.v1.report import HistoryEntry, WorkloadState

Value = str | int | float | bool


def recovered(entries: Iterable[HistoryEntry], name: str) -> WorkloadRecord | None:
    """The record of the workload `name`; None when history commits nothing to it now. `entries` verified, oldest first."""
    record = WorkloadRecord(name=name)
    for entry in entries:
        if entry.fields.get("workload") == name:
            record = _after(record, entry)
    return record if record.committed else None


def _after(record: WorkloadRecord, entry: HistoryEntry) -> WorkloadRecord:
    record = replace(record, port=_number(entry.fields.get("port", 0)) or record.port)
    match entry.kind:
        case WorkloadState.COMMITTED:
            release = _release(entry)
            return replace(record, previous=record.committed, committed=release, confirmed=_sequence(entry))
        case WorkloadState.FELL_BACK:
            return replace(_failed(record, entry), committed=record.previous, previous=None)
        case WorkloadState.UNDONE if entry.fields.get("reason") not in LEARNED_NOTHING:
            return _failed(record, entry)
        case WorkloadState.REMOVED:
            return replace(record, committed=None, previous=None)
        case _:
            return record


def _release(entry: HistoryEntry) -> Release | None:
    """None for an entry of a version that did not write down what it takes to start it again."""
    target, digest = str(entry.fields.get("target", "")), str(entry.fields.get("digest", ""))
    line, _, rest = target.removesuffix(".json").partition("/")
    model, _, version = rest.partition("/")
    if not version or not digest:
        return None
    ref = BundleRef(
        line=line,
        model=model,
        version=version,
        digest=digest,
        release_seq=_number(entry.fields.get("release_seq", 0)),
        target=target,
    )
    variant, rollout = str(entry.fields.get("variant", "")), str(entry.fields.get("rollout", ""))
    return Release(ref=ref, variant=variant, committed=entry.at, rollout=rollout)


def _failed(record: WorkloadRecord, entry: HistoryEntry) -> WorkloadRecord:
    failure = Failure(
        digest=str(entry.fields.get("digest", "")),
        reason=str(entry.fields.get("reason", "")),
        detail=str(entry.fields.get("detail", "")),
        at=entry.at,
    )
    return replace(record, failed=(*record.failed, failure))


def _sequence(entry: HistoryEntry) -> int:
    return _number(entry.fields.get("sequence", 0))


def _number(value: Value) -> int:
    return value if isinstance(value, int) else 0
