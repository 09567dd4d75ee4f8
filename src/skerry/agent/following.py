# SPDX-License-Identifier: Apache-2.0
"""The follower: asks the hub for this device's assignment, has trust look at it, and keeps the one in force on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from skerry.agent.history import History
from skerry.agent.permits import Permits
from skerry.agent.state import Layout
from skerry.agent.transport import Backoff, Fetched, HubRoad
from skerry.effects import Clock, Files
from skerry.errors import CatalogueRefused, HubError, RoadError
from skerry.trust.assignment import Accepted, Refused
from skerry.trust.chain import Value
from skerry.wire.v1.device import Assignment

_log = logging.getLogger(__name__)

LEAST_PAUSE = 1.0


@dataclass(kw_only=True)
class Follower:
    """`assignment` is the one in force, None before the first. `round` is one turn of the follower thread."""

    road: HubRoad
    permits: Permits
    history: History
    files: Files
    layout: Layout
    clock: Clock
    backoff: Backoff
    changed: Callable[[], None]
    poll: float
    refresh_every: float
    assignment: Assignment | None = None
    reached: bool | None = None
    hub_ahead: float = 0.0
    _etag: str = ""
    _last_refusal: str = ""
    _next_refresh: float = 0.0

    def restore(self) -> None:
        """The assignment of the last run, trusted anew. None is in force when it cannot be: then nothing new is installed."""
        envelope = self.files.read(self.layout.assignment)
        if envelope is None:
            return
        try:
            decision = self.permits.accept(envelope)
        except (RoadError, CatalogueRefused) as error:
            _log.warning("stored assignment not trusted error=%s", error)
            return
        if isinstance(decision, Accepted):
            self.assignment = decision.assignment
        else:
            _log.warning("stored assignment refused reason=%s", decision.reason)

    def round(self, stopping: threading.Event) -> float:
        """Returns seconds to pause before the next round."""
        asked = self.clock.monotonic()
        try:
            fetched = self.road.assignment(etag=self._etag, wait=self.poll)
            if fetched is not None and not stopping.is_set():
                self._look_at(fetched)
            elif self.clock.monotonic() >= self._next_refresh:
                self._refresh()
        except (RoadError, HubError) as error:
            self.reached = False
            _log.info("hub not reached error=%s", error)
            return self.backoff.failed()
        self.reached = True
        self.backoff.succeeded()
        return self._pause(self.clock.monotonic() - asked)

    def _pause(self, took: float) -> float:
        """None after a question the hub held open; one that answers at once must not be asked in a tight loop."""
        if took >= self.poll / 2:
            return 0.0
        return min(self.poll, LEAST_PAUSE)

    def _look_at(self, fetched: Fetched) -> None:
        self._refresh()
        try:
            decision = self.permits.accept(fetched.envelope)
        except CatalogueRefused as error:
            self._refused(fetched, str(error.fields["reason"]), str(error))
            return
        match decision:
            case Refused(reason=reason, detail=detail):
                self._refused(fetched, reason, detail)
            case Accepted(assignment=assignment, clock_behind=behind):
                self._accepted(fetched, assignment)
                self.hub_ahead = behind

    def _accepted(self, fetched: Fetched, assignment: Assignment) -> None:
        known = self.assignment
        self.files.write(self.layout.assignment, fetched.envelope)
        if known is None or known.sequence != assignment.sequence:
            names = ",".join(f"{spec.name}={spec.bundle.name}" for spec in assignment.workloads)
            fields: dict[str, Value] = {"sequence": assignment.sequence, "workloads": names}
            self.history.append("assignment-accepted", at=self.clock.now(), fields=fields)
        self.assignment = assignment
        self._etag = fetched.etag
        self._last_refusal = ""
        self.changed()

    def _refused(self, fetched: Fetched, reason: str, detail: str) -> None:
        """Into history once per kind of refusal; the same document is not fetched again."""
        _log.warning("assignment refused reason=%s detail=%s", reason, detail)
        self._etag = fetched.etag
        self._note("assignment-refused", reason, detail)

    def _refresh(self) -> None:
        try:
            self.permits.refresh()
        except CatalogueRefused as error:
            _log.warning("catalogue refused error=%s", error)
            self._note("catalogue-refused", str(error.fields["reason"]), str(error))
        self._next_refresh = self.clock.monotonic() + self.refresh_every

    def _note(self, kind: str, reason: str, detail: str) -> None:
        if self._last_refusal == f"{kind} {reason}":
            return
        self._last_refusal = f"{kind} {reason}"
        self.history.append(kind, at=self.clock.now(), fields={"reason": reason, "detail": detail[:2000]})
