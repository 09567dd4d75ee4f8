# SPDX-License-Identifier: Apache-2.0
"""The reporter: empties the outbox towards the hub, as long as the hub takes it.

A hub of an earlier version, one that was set back say, cannot read reports of trials and refuses the whole batch. Then they are
sent alone, and what is refused alone is dropped: it must not hold up what happened to workloads.
"""

from __future__ import annotations

import logging

from skerry.agent.outbox import Outbox
from skerry.agent.transport import Backoff, HubRoad
from skerry.errors import BadRequest, HubError, RoadError
from skerry.wire.v1.report import Report, ReportBatch, TrialReport, WorkloadReport, WorkloadState

_log = logging.getLogger(__name__)


class Reporter:
    def __init__(self, outbox: Outbox, road: HubRoad, backoff: Backoff) -> None:
        self._outbox = outbox
        self._road = road
        self._backoff = backoff
        self._trials_alone = False
        self.reached: bool | None = None  # whether the hub took the last batch; None = none was sent yet

    def round(self, timeout: float) -> float:
        """Send one batch, waiting up to `timeout` for something to send. Returns seconds to pause after a failure."""
        if not len(self._outbox):
            self._outbox.fresh.wait(timeout)
        self._outbox.fresh.clear()
        batch = _apart(self._outbox.batch()) if self._trials_alone else self._outbox.batch()
        if not batch:
            return 0.0
        try:
            ack = self._road.report(ReportBatch(reports=batch, outbox=self._outbox.identity, oldest=batch[0].seq))
        except BadRequest as error:
            return self._not_understood(batch, error)
        except (RoadError, HubError) as error:
            self.reached = False
            _log.info("reports wait n=%d error=%s", len(self._outbox), error)
            return self._backoff.failed()
        self.reached = True
        if not self._outbox.forget(min(ack.through, batch[-1].seq)):
            _log.warning("the hub acknowledged nothing n=%d through=%d", len(self._outbox), ack.through)
            return self._backoff.failed()
        self._backoff.succeeded()
        return 0.0

    def _not_understood(self, batch: tuple[Report, ...], error: BadRequest) -> float:
        self.reached = False
        if self._trials_alone and _of_a_trial(batch[0]):
            _log.warning("report of a trial dropped seq=%d error=%s", batch[0].seq, error)
            self._outbox.forget(batch[0].seq)
            return 0.0
        if not self._trials_alone and any(map(_of_a_trial, batch)):
            self._trials_alone = True
            return 0.0
        _log.info("reports wait n=%d error=%s", len(self._outbox), error)
        return self._backoff.failed()


def _apart(batch: tuple[Report, ...]) -> tuple[Report, ...]:
    """Of a batch what comes before the first report of a trial; when that is the first, it alone."""
    ends = next((n for n, report in enumerate(batch) if _of_a_trial(report)), len(batch))
    return batch[: max(1, ends)]


def _of_a_trial(report: Report) -> bool:
    match report.body:
        case TrialReport() | WorkloadReport(state=WorkloadState.TRYING):
            return True
        case _:
            return False
