# SPDX-License-Identifier: Apache-2.0
"""What a batch of reports says, worked out before anything is written: pure, in the order the device sent it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from skerry.wire.v1.device import LARGEST_SEQUENCE
from skerry.wire.v1.report import (
    DeviceReport,
    FiguresReport,
    HistoryEntry,
    HistoryReport,
    Report,
    ResultReport,
    WorkloadReport,
)

MAX_DOUBTS = 10


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
        self.results: dict[str, ResultReport] = {}
        self.entries: list[HistoryEntry] = []
        self.device: DeviceReport | None = None
        self.applied_sequence = 0
        self.doubts: list[str] = []
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
            case ResultReport():
                self.results.setdefault(body.event_id, body)
            case HistoryReport() if report.seq in self._rejected:
                self.doubts.append(self._rejected[report.seq])
            case HistoryReport():
                self._chain(body.entry)
            case DeviceReport():
                self.device = body
                self._applied(body.sequence)

    def _applied(self, sequence: int) -> None:
        if self.applied_sequence < sequence < LARGEST_SEQUENCE:
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
