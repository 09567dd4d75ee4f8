# SPDX-License-Identifier: Apache-2.0
"""From runners to the outbox: results gathered for a moment, made durable together, then acknowledged."""

from __future__ import annotations

import logging
import queue
from dataclasses import dataclass

from skerry.agent.outbox import Outbox
from skerry.agent.supervise.process import RunnerProcess
from skerry.errors import DeviceError
from skerry.wire.v1.report import FiguresReport, ResultReport
from skerry.wire.v1.runner import Result

_log = logging.getLogger(__name__)

BATCH = 50
GATHER_SECONDS = 0.05
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class _Said:
    process: RunnerProcess | None
    n: int
    at: float
    report: ResultReport | FiguresReport


class ResultWriter:
    """`result` and `figures` may be called from any thread; `round` is one turn of the writer thread."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._queue: queue.SimpleQueue[_Said] = queue.SimpleQueue()
        self._batch: list[_Said] = []

    def result(self, process: RunnerProcess, result: Result) -> None:
        report = ResultReport(
            workload=process.launch.workload,
            event_id=result.event_id,
            at=result.at,
            bundle=process.launch.bundle,
            outputs=result.outputs,
            request_id=result.request_id,
        )
        self._queue.put(_Said(process, result.n, result.at, report))

    def figures(self, at: float, report: FiguresReport) -> None:
        self._queue.put(_Said(None, 0, at, report))

    def round(self, timeout: float) -> float:
        """Gather and write one batch. Returns seconds to pause before the next round: not 0 when the disk refused."""
        self._gather(timeout)
        if not self._batch:
            return 0.0
        try:
            self._outbox.put((said.at, said.report) for said in self._batch)
        except DeviceError as error:  # the runners keep what is not acknowledged; so do we
            _log.error("results not stored error=%s", error)
            return _RETRY_SECONDS
        batch, self._batch = self._batch, []
        for process, through in self._newest(batch).items():
            process.acked(through)
        return 0.0

    def _gather(self, timeout: float) -> None:
        wait = timeout
        while len(self._batch) < BATCH:
            try:
                self._batch.append(self._queue.get(timeout=wait))
            except queue.Empty:
                return
            wait = GATHER_SECONDS

    @staticmethod
    def _newest(batch: list[_Said]) -> dict[RunnerProcess, int]:
        newest: dict[RunnerProcess, int] = {}
        for said in batch:
            if said.process is not None:
                newest[said.process] = max(newest.get(said.process, 0), said.n)
        return newest
