# SPDX-License-Identifier: Apache-2.0
"""Does what `reconcile` decided, one step at a time, and writes down how far it got.

Order of every change: the record (atomic), then history and outbox (one transaction, idempotent per record revision).
A record's `pending` has always been emitted before the record changes again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from skerry.agent.reconcile import Step, StepKind
from skerry.agent.state import Phase, Records, Release, Undoing, WorkloadRecord
from skerry.agent.store import Store
from skerry.agent.update import progress
from skerry.agent.update.contract import (
    Context,
    Fact,
    Road,
    Runners,
    StepFailed,
    StepRefused,
    Superseded,
    TrustGate,
)
from skerry.agent.update.facts import STEPS, holds
from skerry.agent.update.fetch import Fetch
from skerry.agent.update.launch import launch_of
from skerry.agent.update.unpack import Unpack, unpack_again
from skerry.effects import Clock
from skerry.errors import StateDamaged, StepContractBroken
from skerry.wire.v1.device import Assignment, Capabilities, WorkloadSpec

_log = logging.getLogger(__name__)
_ON_DISK = frozenset({Fact.STORED, Fact.UNPACKED})


class Ledger(Protocol):
    """History and outbox, as one."""

    def emit(self, record: WorkloadRecord) -> bool:
        """Make a record's `pending` durable there, once per revision."""


@dataclass(kw_only=True)
class Means:
    """What acting takes."""

    records: Records
    history: Ledger
    store: Store
    runners: Runners
    road: Road
    permits: TrustGate
    capabilities: Capabilities
    clock: Clock
    boot: str
    memory_limit_mib: int = 0
    stopping: Callable[[], bool] = lambda: False
    taken: Callable[[], Mapping[str, float]] = dict  # workload -> MiB its runners hold


class Actor:
    def __init__(self, means: Means) -> None:
        self._means = means
        self._steps = {step.phase: step for step in STEPS}
        self._emitted: dict[str, int] = {}  # workload -> revision known to be in history and outbox

    def settle(self) -> None:
        """After a start: what records still carry reaches history and outbox, and what nothing refers to goes."""
        self._collect()
        self.catch_up()

    def catch_up(self) -> None:
        """Emit what could not be emitted when it happened. Raises StorageError when it still cannot."""
        for record in self._means.records.all():
            self._emit(record)

    def readdress(self, assignment: Assignment) -> None:
        """Attempts that go on under a newer assignment take its number, rollout and soak over."""
        specs = {spec.name: spec for spec in assignment.workloads}
        for record in self._means.records.all():
            attempt, spec = record.attempt, specs.get(record.name)
            if attempt is None or spec is None or attempt.undoing or spec.bundle != attempt.spec.bundle:
                continue
            if attempt.sequence != assignment.sequence or attempt.spec != spec:
                self._write(progress.readdressed(record, spec, sequence=assignment.sequence))

    def act(self, step: Step, check_cancelled: Callable[[], None] = lambda: None) -> bool:
        """One step. False when the rest of what was decided no longer applies: decide again.

        Raises RoadError, DeviceError: nothing was decided by that; try again later.
        """
        _log.info("step kind=%s workload=%s reason=%s", step.kind, step.workload, step.reason)
        if step.kind is not StepKind.START:  # a full disk keeps no committed version from starting
            self._emit(self._means.records.get(step.workload))
        match step.kind:
            case StepKind.UNDO:
                self._undo(step)
            case StepKind.START:
                self._start(step.workload)
            case StepKind.FALL_BACK:
                self._fall_back(step)
            case StepKind.REMOVE:
                self._remove(step)
            case StepKind.REFUSE | StepKind.CONFIRM:
                self._answer(step)
            case StepKind.COMMIT:
                return self._advance(step, None, check_cancelled)
            case _:
                return self._advance(step, Phase(step.kind.value), check_cancelled)
        return True

    # --- forward ---

    def _advance(self, step: Step, phase: Phase | None, check_cancelled: Callable[[], None]) -> bool:
        spec = _spec(step)
        self._enter(step, spec, phase)
        context = self._context(spec, check_cancelled)
        work = self._steps[phase]
        lost = [fact for fact in work.requires & _ON_DISK if not holds(fact, context)]
        if lost:
            _log.warning("begin again workload=%s lost=%s", spec.name, ",".join(lost))
            self._write(progress.reached(context.record, Phase.FETCH, now=self._now()))
            return False
        try:
            work.run(context, holds)
        except StepFailed as no:
            if not self._means.stopping():  # else we took its runner away ourselves: nothing was learned of the bundle
                self._take_back(context, Undoing(reason=no.reason, detail=no.detail))
            return False
        except StepRefused as no:
            self._refuse(context, step.sequence, no.reason, no.detail)
            return False
        except StepContractBroken as error:
            _log.exception("contract workload=%s", spec.name)
            self._refuse(context, step.sequence, error.code, str(error))
            return False
        except Superseded:
            return False
        self._emit(context.record)
        if phase is None:
            self._collect()
        return True

    def _enter(self, step: Step, spec: WorkloadSpec, phase: Phase | None) -> None:
        record = self._means.records.get(spec.name)
        if record.attempt is None:
            self._write(progress.began(record, spec, sequence=step.sequence, now=self._now()))
        elif phase is not None and (record.attempt.phase is not phase or phase is Phase.SELF_TEST):
            detail = self._means.runners.warmth(spec.name) if phase is Phase.SOAK else ""
            self._write(progress.reached(record, phase, now=self._now(), boot=self._means.boot, detail=detail))
        if phase is Phase.SELF_TEST:
            self._listen(spec.name)

    def _refuse(self, context: Context, sequence: int, reason: str, detail: str) -> None:
        self._revert(context)
        record, spec = context.record, context.spec
        self._write(progress.refused(record, spec, sequence=sequence, reason=reason, detail=detail, now=self._now()))
        self._collect()

    # --- back ---

    def _undo(self, step: Step) -> None:
        why = Undoing(reason=step.reason, detail=step.detail, remember=step.remember, rest=step.rest)
        self._take_back(self._context(_spec(step)), why)

    def _take_back(self, context: Context, why: Undoing) -> None:
        attempt = context.record.attempt
        if attempt is not None and attempt.undoing is None:
            self._write(progress.undoing(context.record, why))
        self._revert(context)
        self._write(progress.undone(context.record, now=self._now()))
        self._collect()

    def _revert(self, context: Context) -> None:
        if context.record.committed is not None:
            self._listen(context.spec.name)
        for work in reversed(STEPS):
            try:
                work.revert(context, holds)
            except StepContractBroken:  # the other steps must still be taken back
                _log.exception("undo workload=%s", context.spec.name)

    # --- beside ---

    def _start(self, name: str) -> None:
        release = self._means.records.get(name).committed
        if release is None:
            return
        self._make_whole(name, release)
        self._listen(name)
        self._means.runners.start(launch_of(name, release, self._means.store, self._means.memory_limit_mib))

    def _make_whole(self, name: str, release: Release) -> None:
        """Mend a bundle that was committed here, if need be: from its blobs, else only what is damaged travels again."""
        store, digest = self._means.store, release.ref.digest
        flaw = store.flaw(digest, release.variant)
        if not flaw:
            return
        _log.error("bundle damaged workload=%s flaw=%s", name, flaw)
        context = self._context(WorkloadSpec(name=name, bundle=release.ref, rollout=release.rollout))
        store.drop(digest)
        if unpack_again(context):
            return
        try:
            Fetch().run(context, holds)
            Unpack().run(context, holds)
        except StepRefused as no:
            raise StateDamaged(path=digest, problem=f"{flaw}; fetching it again: {no}") from no

    def _fall_back(self, step: Step) -> None:
        record = self._means.records.get(step.workload)
        if record.previous is None:
            return
        self._make_whole(record.name, record.previous)
        self._listen(record.name)
        launch = launch_of(record.name, record.previous, self._means.store, self._means.memory_limit_mib)
        self._means.runners.stage(launch)
        self._means.runners.promote(record.name)
        detail = "the committed version crashed again and again"
        record = self._means.records.get(step.workload)
        self._write(
            progress.fell_back(record, reason=step.reason, detail=detail, sequence=record.confirmed, now=self._now())
        )
        self._collect()

    def _remove(self, step: Step) -> None:
        self._means.runners.stop(step.workload)
        record = self._means.records.get(step.workload)
        self._write(progress.removed(record, sequence=step.sequence, now=self._now()))
        self._collect()

    def _answer(self, step: Step) -> None:
        record, spec, now = self._means.records.get(step.workload), _spec(step), self._now()
        if step.kind is StepKind.CONFIRM:
            self._write(progress.confirmed(record, spec, sequence=step.sequence, now=now))
        else:
            self._write(
                progress.refused(record, spec, sequence=step.sequence, reason=step.reason, detail=step.detail, now=now)
            )

    # --- inside ---

    def _write(self, record: WorkloadRecord) -> None:
        self._emit(self._means.records.get(record.name))
        self._emit(self._means.records.put(record))

    def _emit(self, record: WorkloadRecord) -> None:
        if record.pending and self._emitted.get(record.name) != record.revision:
            self._means.history.emit(record)
            self._emitted[record.name] = record.revision

    def _listen(self, name: str) -> None:
        """The port is on disk before anyone can be told of it."""
        record = self._means.records.get(name)
        port = self._means.runners.listen(name, record.port)
        if port != record.port:
            self._write(replace(record, port=port, pending=()))

    def _collect(self) -> None:
        records = self._means.records.all()
        self._means.store.collect({digest for record in records for digest in record.digests()})

    def _context(self, spec: WorkloadSpec, check_cancelled: Callable[[], None] = lambda: None) -> Context:
        means = self._means
        return Context(
            spec=spec,
            records=means.records,
            store=means.store,
            runners=means.runners,
            road=means.road,
            permits=means.permits,
            capabilities=means.capabilities,
            clock=means.clock,
            memory_limit_mib=means.memory_limit_mib,
            check_cancelled=check_cancelled,
            taken=means.taken,
        )

    def _now(self) -> float:
        return self._means.clock.now()


def _spec(step: Step) -> WorkloadSpec:
    if step.spec is None:
        raise StepContractBroken(step=step.kind, problem="it came without the workload it is about")
    return step.spec
