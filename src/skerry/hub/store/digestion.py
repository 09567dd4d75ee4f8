# SPDX-License-Identifier: Apache-2.0
"""What a batch of reports says, worked out before anything is written: pure, in the order the device sent it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from skerry.wire.v1.device import LARGEST_SEQUENCE
from skerry.wire.v1.report import (
    DeviceReport,
    FiguresReport,
    HistoryEntry,
    HistoryReport,
    Report,
    ResultReport,
    TrialReport,
    WorkloadReport,
)

MAX_DOUBTS = 10
HIGHEST_BELIEVED = LARGEST_SEQUENCE // 2
"""A hub goes on above what a device has followed, but no hub counted this far: a thief of its key leaves it no room above."""
_LOST = "reports-lost"
_REFUSED = "assignment-refused"
_REPLACED = "outbox-replaced: what the one before still held is gone"


class Place(Struct, frozen=True, kw_only=True):
    """How far the reports of one outbox have come."""

    through: int = 0  # everything up to here is stored or lost
    lost: int = 0  # of those, how many
    fresh: bool = False  # this outbox was never heard of
    others: bool = False  # but another one of the same device was

    def after(self, taken: Sequence[Report]) -> Place:
        """`taken` are contiguous; what lies between the place and them is lost."""
        return Place(through=taken[-1].seq, lost=self.lost + taken[0].seq - self.through - 1)


class Remark(Struct, frozen=True, kw_only=True):
    """Something about a batch that the audit log shall hold."""

    action: str
    outcome: str


def remarks(before: Place, after: Place, digest: Digest, *, issued: int) -> Iterator[Remark]:
    """`issued`: the last assignment the hub knows of. Lost reports are remarked on once per outbox; how many they are by
    now stands with the device.
    """
    if before.fresh and before.others:
        yield Remark(action="report", outcome=_REPLACED)
    if after.lost and not before.lost:
        yield Remark(action="report", outcome=f"lost: {after.lost} before {after.through}")
    if digest.applied_sequence > issued:
        detail = f"it holds assignment {digest.applied_sequence}, the last one known here is {issued}"
        yield Remark(action="report", outcome=f"ahead: {detail}")
    if digest.tampered:
        yield Remark(action="report history", outcome=f"tampered: {digest.tampered[0]}")


def doubts(known: Iterable[str], digest: Digest, before: Place, *, lost: int) -> tuple[str, ...]:
    """What the hub holds against a device's record, without repetition. `lost`: reports of all its outboxes."""
    first = (f"{_LOST}: {lost} never arrived",) if lost else ()
    replaced = (_REPLACED,) if before.fresh and before.others else ()
    rest = (doubt for doubt in known if not doubt.startswith(_LOST))
    return tuple(dict.fromkeys((*first, *replaced, *rest, *digest.doubts)))[:MAX_DOUBTS]


def following(reports: Iterable[Report], through: int) -> tuple[Report, ...]:
    """The reports that continue without a gap after `through`; repeated ones and those behind a gap are left out."""
    by_seq = {report.seq: report for report in reports}
    taken: list[Report] = []
    while (report := by_seq.get(through + 1)) is not None:
        taken.append(report)
        through += 1
    return tuple(taken)


class Digest:
    """The last word on everything the batch touches. `head_n`, `head_hash`: newest history entry stored before it;
    `rejected`: report sequences whose history entry is not what the device signed, with what is wrong.
    """

    def __init__(
        self, reports: Sequence[Report], *, head_n: int, head_hash: str, rejected: Mapping[int, str] | None = None
    ) -> None:
        self.workloads: dict[str, tuple[float, WorkloadReport]] = {}
        self.figures: dict[tuple[str, str], tuple[float, FiguresReport]] = {}
        self.trials: dict[tuple[str, str], tuple[float, TrialReport]] = {}
        self.results: dict[str, ResultReport] = {}
        self.entries: list[HistoryEntry] = []
        self.device: DeviceReport | None = None
        self.applied_sequence = 0
        self.doubts: list[str] = []
        self.tampered: list[str] = []
        self.head_n = head_n
        self.head_hash = head_hash
        self._rejected = rejected or {}
        for report in reports:
            self._take(report)

    def _take(self, report: Report) -> None:
        body = report.body
        match body:
            case WorkloadReport():
                self.workloads[body.workload] = (report.at, body)
                self._applied(body.sequence)
            case FiguresReport():
                self.figures[body.workload, body.digest] = (report.at, body)
            case TrialReport():
                self.trials[body.workload, body.digest] = (report.at, body)
            case ResultReport():
                self.results.setdefault(body.event_id, body)
            case HistoryReport() if report.seq in self._rejected:
                self.doubts.append(self._rejected[report.seq])
                self.tampered.append(self._rejected[report.seq])
            case HistoryReport():
                self._chain(body.entry)
            case DeviceReport():
                self.device = body
                self._applied(body.sequence)

    def wants_another(self, *, issued: int) -> bool:
        """Whether the device can never follow what the hub issued last: it follows a later number, or this number from elsewhere."""
        if self.applied_sequence > issued:
            return True
        refuses = self.device is not None and any(issue.startswith(_REFUSED) for issue in self.device.issues)
        return refuses and self.applied_sequence == issued > 0

    def _applied(self, sequence: int) -> None:
        if self.applied_sequence < sequence < HIGHEST_BELIEVED:
            self.applied_sequence = sequence

    def _chain(self, entry: HistoryEntry) -> None:
        """Hash and signature were checked by the caller; here only that it is one chain, written once."""
        if entry.n == self.head_n + 1 and entry.previous == self.head_hash:
            self.entries.append(entry)
            self.head_n, self.head_hash = entry.n, entry.hash
        elif entry.n > self.head_n + 1:
            self.doubts.append(f"history-gap at {entry.n} after {self.head_n}")
        else:
            self.doubts.append(f"history-fork at {entry.n}")
