# SPDX-License-Identifier: Apache-2.0
"""The updater: looks, decides (reconcile), acts (Actor), again and again. One thread; nobody else writes records."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from skerry.agent.act import Actor
from skerry.agent.reconcile import Local, Soak, Step, StepKind, TrialSeen, View, reconcile
from skerry.agent.state import Phase, Records, WorkloadRecord
from skerry.agent.transport import Backoff
from skerry.agent.update.contract import Superseded
from skerry.effects import Clock
from skerry.errors import ArtefactError, CatalogueRefused, DeviceError, HubError, RoadError
from skerry.wire.v1.device import Assignment

_log = logging.getLogger(__name__)

SOAK_LOOK = 0.25
IDLE_LOOK = 5.0
URGENT_LOOK = 1.0
UPDATING = frozenset(
    {StepKind.FETCH, StepKind.UNPACK, StepKind.SELF_TEST, StepKind.TRIAL, StepKind.SWITCH, StepKind.SOAK}
)
"""Steps that may take long, and that nothing that serves depends on."""

WATCHED = frozenset({Phase.TRIAL, Phase.SOAK})


class Watched(Protocol):
    """The supervisor, as the updater sees it."""

    def serving(self, workload: str) -> str: ...

    def soak(self, workload: str) -> Soak | None: ...

    def trial(self, workload: str) -> TrialSeen | None: ...

    def crash_loop(self, workload: str, digest: str) -> bool: ...

    def restarting(self, workload: str) -> bool: ...

    def end_soak(self, workload: str) -> None: ...


Lane = tuple[str, bool]
"""A workload, and whether it is about its update: the two may be in trouble apart from each other."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    problem: str
    until: float  # not tried again before, monotonic seconds
    backoff: Backoff


@dataclass(kw_only=True)
class Updater:
    """What keeps a committed version serving goes before every update, between workloads too: a long fetch is left, and
    continued later, when something else has to be done. An update does not wait for a committed version that will not start:
    it may be what mends it.
    """

    actor: Actor
    records: Records
    supervisor: Watched
    clock: Clock
    trusted_now: Callable[[], float]
    assignment: Callable[[], Assignment | None]
    new_backoff: Callable[[], Backoff]
    stopping: Callable[[], bool] = field(default=lambda: False)
    beat: Callable[[], None] = field(default=lambda: None)
    _trouble: dict[Lane, Trouble] = field(default_factory=dict)

    def round(self) -> float:
        """Everything there is to do now. Returns seconds until it is worth looking again; 0 = at once."""
        assignment = self.assignment()
        if assignment is not None:
            self._readdress(assignment)
        steps = reconcile(assignment, self._look(assignment), self.trusted_now())
        for lane in self._trouble.keys() - {_lane(step) for step in steps}:
            del self._trouble[lane]  # nobody asks for that any more
        ready = self._not_waiting(steps)
        for updates in (False, True):
            chosen = [step for step in ready if _lane(step)[1] is updates]
            for workload, planned in groupby(chosen, key=lambda step: step.workload):
                self._work((workload, updates), tuple(planned), assignment)
        if ready:
            return 0.0
        self.actor.catch_up()
        return self._pause()

    @property
    def problems(self) -> dict[str, str]:
        """Workload -> why its last step has to be tried again."""
        return {workload: trouble.problem for (workload, _), trouble in self._trouble.copy().items()}

    @property
    def settled(self) -> bool:
        """Nothing is being attempted and nothing waits to be tried again."""
        return not self._trouble and all(record.attempt is None for record in self.records.all())

    def _readdress(self, assignment: Assignment) -> None:
        try:
            self.actor.readdress(assignment)
        except DeviceError as error:  # no reason not to start what is committed
            _log.warning("not readdressed error=%s", error)

    def _not_waiting(self, steps: tuple[Step, ...]) -> list[Step]:
        """Without what failed and has to wait."""
        now = self.clock.monotonic()
        waiting = {lane for lane, trouble in self._trouble.items() if trouble.until > now}
        return [step for step in steps if _lane(step) not in waiting]

    def _is_urgent(self, assignment: Assignment | None) -> bool:
        """Whether there is something to do that an update must not hold up."""
        steps = reconcile(assignment, self._look(assignment), self.trusted_now())
        return any(step.kind not in UPDATING for step in self._not_waiting(steps))

    def _look(self, assignment: Assignment | None) -> Local:
        names = {record.name for record in self.records.all()}
        names |= {spec.name for spec in assignment.workloads} if assignment else set()
        return Local(workloads=tuple(self._view(self.records.get(name)) for name in sorted(names)))

    def _view(self, record: WorkloadRecord) -> View:
        name = record.name
        running = self.supervisor.serving(name)
        soak = self.supervisor.soak(name)
        tried = record.attempt.spec.bundle if record.attempt and soak is not None else None
        served = tried or (record.committed.ref if record.committed else None)
        return View(
            record=record,
            running=running,
            soak=soak,
            trial=self.supervisor.trial(name),
            crash_loop=served is not None and self.supervisor.crash_loop(name, served.digest),
            restarting=self.supervisor.restarting(name),
        )

    def _work(self, lane: Lane, steps: tuple[Step, ...], assignment: Assignment | None) -> None:
        check_cancelled = self._checker(assignment, updates=lane[1])
        try:
            for step in steps:
                check_cancelled()
                if not self.actor.act(step, check_cancelled):
                    break
                if step.kind is StepKind.COMMIT:
                    self.supervisor.end_soak(step.workload)
        except Superseded:
            return
        except (RoadError, DeviceError, HubError, ArtefactError, CatalogueRefused) as error:
            if not self.stopping():
                self._later(lane, error)
            return
        self._trouble.pop(lane, None)

    def _checker(self, assignment: Assignment | None, *, updates: bool) -> Callable[[], None]:
        """Raises Superseded when what is being done should be left: called between steps, and for each piece of a fetch."""
        look = self.clock.monotonic() + URGENT_LOOK

        def check() -> None:
            nonlocal look
            self.beat()
            current = self.assignment()
            if self.stopping() or (current and current.sequence) != (assignment and assignment.sequence):
                raise Superseded
            if updates and self.clock.monotonic() >= look:
                look = self.clock.monotonic() + URGENT_LOOK
                if self._is_urgent(assignment):
                    raise Superseded

        return check

    def _later(self, lane: Lane, error: Exception) -> None:
        known = self._trouble.get(lane)
        backoff = known.backoff if known else self.new_backoff()
        pause = backoff.failed()
        _log.warning("try later workload=%s in=%.1f error=%s", lane[0], pause, error)
        self._trouble[lane] = Trouble(problem=str(error), until=self.clock.monotonic() + pause, backoff=backoff)

    def _pause(self) -> float:
        now = self.clock.monotonic()
        waits = [trouble.until - now for trouble in self._trouble.values() if trouble.until > now]
        watching = any(record.attempt and record.attempt.phase in WATCHED for record in self.records.all())
        return max(0.0, min([SOAK_LOOK if watching else IDLE_LOOK, *waits]))


def _lane(step: Step) -> Lane:
    return step.workload, step.kind in UPDATING
