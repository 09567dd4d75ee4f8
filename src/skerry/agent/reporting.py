# SPDX-License-Identifier: Apache-2.0
"""The reporter: empties the outbox towards the hub, as long as the hub takes it."""

from __future__ import annotations

import logging

from skerry.agent.outbox import Outbox
from skerry.agent.transport import Backoff, HubRoad
from skerry.errors import HubError, RoadError
from skerry.wire.v1.report import ReportBatch

_log = logging.getLogger(__name__)


class Reporter:
    def __init__(self, outbox: Outbox, road: HubRoad, backoff: Backoff) -> None:
        self._outbox = outbox
        self._road = road
        self._backoff = backoff
        self.reached: bool | None = None  # whether the hub took the last batch; None = none was sent yet

    def round(self, timeout: float) -> float:
        """Send one batch, waiting up to `timeout` for something to send. Returns seconds to pause after a failure."""
        if not len(self._outbox):
            self._outbox.fresh.wait(timeout)
        self._outbox.fresh.clear()
        batch = self._outbox.batch()
        if not batch:
            return 0.0
        try:
            ack = self._road.report(ReportBatch(reports=batch, outbox=self._outbox.identity, oldest=batch[0].seq))
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
