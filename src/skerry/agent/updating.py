# SPDX-License-Identifier: Apache-2.0
"""The updater: looks, decides (reconcile), acts (Actor), again and again. One thread; nobody else writes records."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from skerry.agent.act import Actor
from skerry.agent.reconcile import Local, Soak, Step, StepKind, View, reconcile
from skerry.agent.state import Phase, Records, WorkloadRecord
from skerry.agent.transport import Backoff
from skerry.agent.update.contract import Superseded
from skerry.effects import Clock
from skerry.errors import ArtefactError, CatalogueRefused, DeviceError, HubError, RoadError
from skerry.wire.v1.device import Assignment

_log = logging.getLogger(__name__)

SOAK_LOOK = 0.25
IDLE_LOOK = 5.0


class Watched(Protocol):
    """The supervisor, as the updater sees it."""

    def serving(self, workload: str) -> str: ...

    def soak(self, workload: str) -> Soak | None: ...

    def crash_loop(self, workload: str, digest: str) -> bool: ...

    def restarting(self, workload: str) -> bool: ...

    def end_soak(self, workload: str) -> None: ...


@dataclass(kw_only=True)
class Updater:
    actor: Actor
    records: Records
    supervisor: Watched
    clock: Clock
    trusted_now: Callable[[], float]
    assignment: Callable[[], Assignment | None]
    new_backoff: Callable[[], Backoff]
    problems: dict[str, str] = field(default_factory=dict)  # workload -> why its last step has to be tried again
    _backoffs: dict[str, Backoff] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    def round(self) -> float:
        """Everything there is to do now. Returns seconds until it is worth looking again; 0 = at once."""
        assignment = self.assignment()
        if assignment is not None:
            self.actor.readdress(assignment)
        steps = reconcile(assignment, self._look(assignment), self.trusted_now())
        ready = [step for step in steps if self._not_before.get(step.workload, 0.0) <= self.clock.monotonic()]
        for workload, planned in groupby(ready, key=lambda step: step.workload):
            self._work(workload, tuple(planned), assignment)
        if ready:
            return 0.0
        self.actor.catch_up()
        return self._pause()

    @property
    def settled(self) -> bool:
        """Nothing is being attempted and nothing waits to be tried again."""
        return not self.problems and all(record.attempt is None for record in self.records.all())

    def _look(self, assignment: Assignment | None) -> Local:
        names = {record.name for record in self.records.all()}
        names |= {spec.name for spec in assignment.workloads} if assignment else set()
        return Local(workloads=tuple(self._view(self.records.get(name)) for name in sorted(names)))

    def _view(self, record: WorkloadRecord) -> View:
        name = record.name
        running = self.supervisor.serving(name)
        held = record.attempt.spec.bundle.digest if record.attempt else ""
        watched = held or (record.committed.ref.digest if record.committed else "")
        return View(
            record=record,
            running=running,
            soak=self.supervisor.soak(name),
            crash_loop=self.supervisor.crash_loop(name, watched),
            restarting=self.supervisor.restarting(name),
        )

    def _work(self, workload: str, steps: tuple[Step, ...], assignment: Assignment | None) -> None:
        def check_cancelled() -> None:
            current = self.assignment()
            if (current and current.sequence) != (assignment and assignment.sequence):
                raise Superseded

        try:
            for step in steps:
                check_cancelled()
                if not self.actor.act(step, check_cancelled):
                    break
                if step.kind is StepKind.COMMIT:
                    self.supervisor.end_soak(workload)
        except Superseded:
            return
        except (RoadError, DeviceError, HubError, ArtefactError, CatalogueRefused) as error:
            self._later(workload, error)
            return
        self.problems.pop(workload, None)
        self._backoffs.pop(workload, None)

    def _later(self, workload: str, error: Exception) -> None:
        backoff = self._backoffs.setdefault(workload, self.new_backoff())
        pause = backoff.failed()
        _log.warning("try later workload=%s in=%.1f error=%s", workload, pause, error)
        self.problems[workload] = str(error)
        self._not_before[workload] = self.clock.monotonic() + pause

    def _pause(self) -> float:
        now = self.clock.monotonic()
        waits = [until - now for until in self._not_before.values() if until > now]
        soaking = any(record.attempt and record.attempt.phase is Phase.SOAK for record in self.records.all())
        return max(0.0, min([SOAK_LOOK if soaking else IDLE_LOOK, *waits]))
