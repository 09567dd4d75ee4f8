# SPDX-License-Identifier: Apache-2.0
"""Pure: what an agent should do next, from what it was assigned, what it has and what its runners say.

Rules, in the order they are applied to each workload:
1.  an attempt that is being undone is undone to the end before anything else;
2.  an attempt for a bundle no longer assigned is taken back, without holding it against the bundle;
3.  a machine that keeps rebooting while a bundle is being activated undoes that bundle; a trial that is cut short again and
    again is given up, without holding it against the bundle;
4.  a committed version in a crash loop gives way to the version before it, for good;
5.  a committed version that does not run is started, whatever the hub says or does not say;
6.  an attempt goes on from the phase it had reached, before it serves only while an assignment is in force; a trial and a
    soak are judged on the device;
7.  an assigned bundle that failed here once is refused for ever, one that trust refused until the hub assigns anew;
8.  what else is assigned and not committed is attempted;
9.  a workload no longer assigned is removed. No assignment at all removes nothing.
"""

from __future__ import annotations

import math
from enum import StrEnum

from msgspec import Struct

from skerry.agent.state import Attempt, Phase, WorkloadRecord
from skerry.wire.v1.device import Assignment, Trial, TrialMode, WorkloadSpec

REBOOTS_TOLERATED = 3
TRIALS_TOLERATED = 5
"""Of one attempt that were begun and cut short; a trial starts from zero with the agent."""

REQUESTS_TO_JUDGE_EARLY = 20


class StepKind(StrEnum):
    FETCH = "fetch"
    UNPACK = "unpack"
    SELF_TEST = "self-test"
    TRIAL = "trial"
    SWITCH = "switch"
    SOAK = "soak"
    COMMIT = "commit"
    UNDO = "undo"
    START = "start"  # the committed version is not running
    FALL_BACK = "fall-back"  # the committed version crashes again and again
    REFUSE = "refuse"
    CONFIRM = "confirm"  # the assigned bundle is the committed one: say so under this assignment
    REMOVE = "remove"


class Step(Struct, frozen=True, kw_only=True):
    kind: StepKind
    workload: str
    sequence: int = 0
    spec: WorkloadSpec | None = None
    reason: str = ""
    detail: str = ""
    remember: bool = False
    rest: bool = False


class TrialSeen(Struct, frozen=True, kw_only=True):
    """What the agent saw of a version that is tried beside the current one."""

    elapsed: float
    against: bool = True  # there is a current version that serves, or is about to
    asked: int = 0
    errors: int = 0
    compared: int = 0
    agreed: int = 0
    skipped: int = 0  # requests of sequences, which a shadow is not shown
    latency_ratio: float | None = None
    shift_mean: float | None = None
    crashed: str = ""  # why it is no longer there


class Soak(Struct, frozen=True, kw_only=True):
    """What the agent saw of a soaking version since it began to serve."""

    elapsed: float
    requests: int = 0
    errors: int = 0
    latency_p95_ms: float | None = None  # median of the windows' p95
    crashes: int = 0
    probe_failures: int = 0


class View(Struct, frozen=True, kw_only=True):
    """One workload as it is now. `running` = digest that serves, empty when none."""

    record: WorkloadRecord
    running: str = ""
    soak: Soak | None = None
    trial: TrialSeen | None = None
    crash_loop: bool = False
    restarting: bool = False  # the supervisor is about to start it again after a crash


class Local(Struct, frozen=True, kw_only=True):
    workloads: tuple[View, ...] = ()


class Verdict(StrEnum):
    WAIT = "wait"
    PASSED = "passed"
    FAILED = "failed"


class Judgement(Struct, frozen=True, kw_only=True):
    verdict: Verdict
    reason: str = ""
    detail: str = ""
    remember: bool = True  # a failure is the bundle's own


class Reason(StrEnum):
    """Why the agent itself takes a version back or refuses one. Stable words; they reach reports and history."""

    SUPERSEDED = "superseded"
    REBOOT_LOOP = "reboot-loop"
    CRASH_LOOP = "crash-loop"
    CRASHED = "crashed-in-soak"
    ERROR_RATE = "error-rate"
    LATENCY = "latency"
    PROBE_FAILED = "probe-failed"
    FAILED_BEFORE = "failed-before"
    CRASHED_IN_TRIAL = "crashed-in-trial"
    TRIAL_ERROR_RATE = "trial-error-rate"
    AGREEMENT = "agreement"
    CONFIDENCE_SHIFT = "confidence-shift"
    TRIAL_LATENCY = "trial-latency"
    TOO_FEW_SAMPLES = "too-few-samples"
    TRIAL_CUT_SHORT = "trial-cut-short"


LEARNED_NOTHING = frozenset({Reason.SUPERSEDED, Reason.TOO_FEW_SAMPLES, Reason.TRIAL_CUT_SHORT})
"""Undone for these, a bundle is not held to have failed."""

_NOT_YET_SERVING = frozenset({Phase.FETCH, Phase.UNPACK, Phase.SELF_TEST, Phase.TRIAL})
_PIPELINE = (
    (Phase.FETCH, StepKind.FETCH),
    (Phase.UNPACK, StepKind.UNPACK),
    (Phase.SELF_TEST, StepKind.SELF_TEST),
    (Phase.TRIAL, StepKind.TRIAL),
    (Phase.SWITCH, StepKind.SWITCH),
    (Phase.SOAK, StepKind.SOAK),
)


def reconcile(assignment: Assignment | None, local: Local, now: float) -> tuple[Step, ...]:
    """Steps in order, each workload's together. `now` (seconds, UTC) decides only whether the assignment still holds.

    An expired assignment asks for nothing new and removes nothing; what runs goes on running.
    """
    in_force = assignment if assignment and now < assignment.expires else None
    specs = {spec.name: spec for spec in in_force.workloads} if in_force else {}
    views = {view.record.name: view for view in local.workloads}
    steps: list[Step] = []
    for name in sorted(views.keys() | specs.keys()):
        view = views.get(name) or View(record=WorkloadRecord(name=name))
        steps += _workload(view, specs.get(name), in_force)
    return tuple(steps)


def judge_soak(spec: WorkloadSpec, soak: Soak) -> Judgement:
    """Does a soaking version pass? A crash or failed probe decides at once, rates as soon as there is enough to judge."""
    if soak.crashes:
        return _failed(Reason.CRASHED, f"{soak.crashes} crash(es) in {soak.elapsed:.1f} s")
    if soak.probe_failures:
        return _failed(Reason.PROBE_FAILED, f"{soak.probe_failures} probe(s) failed")
    over = soak.elapsed >= spec.soak_seconds
    rate = soak.errors / soak.requests if soak.requests else 0.0
    if rate > spec.max_error_rate and (over or soak.requests >= REQUESTS_TO_JUDGE_EARLY):
        return _failed(Reason.ERROR_RATE, f"{rate:.3f} of {soak.requests} requests failed, limit {spec.max_error_rate}")
    if not over:
        return Judgement(verdict=Verdict.WAIT)
    limit = spec.max_latency_p95_ms
    if limit is not None and soak.latency_p95_ms is not None and soak.latency_p95_ms > limit:
        return _failed(Reason.LATENCY, f"p95 {soak.latency_p95_ms:.2f} ms, limit {limit} ms")
    return Judgement(verdict=Verdict.PASSED)


def _failed(reason: Reason, detail: str, *, remember: bool = True) -> Judgement:
    return Judgement(verdict=Verdict.FAILED, reason=reason, detail=detail, remember=remember)


def judge_trial(trial: Trial, seen: TrialSeen) -> Judgement:
    """Does a version that is tried pass? Shares are judged once time and samples suffice, and before that only when more
    samples could no longer change the answer. Too few samples in the longest time is no failure of the bundle.
    """
    if seen.crashed:
        return _failed(Reason.CRASHED_IN_TRIAL, seen.crashed)
    if not seen.against:
        return Judgement(verdict=Verdict.PASSED, detail="nothing serves that it could be compared with")
    enough = seen.asked >= trial.min_samples
    compared = trial.mode is TrialMode.CANARY or seen.compared > 0
    timed = trial.max_latency_ratio is None or seen.latency_ratio is not None
    over = enough and compared and timed and seen.elapsed >= trial.seconds
    failure = _falls_short(trial, seen, certain=not over) if enough else None
    if failure is not None:
        return failure
    if over:
        return Judgement(verdict=Verdict.PASSED)
    if seen.elapsed >= trial.longest_seconds:
        what = f"{seen.asked} requests, {seen.compared} answers compared in {seen.elapsed:.0f} s"
        missing = f"{trial.min_samples} needed" if timed else "latency not measured"
        skipped = f"; {seen.skipped} of sequences not shown, a split would try those too" if seen.skipped else ""
        return _failed(Reason.TOO_FEW_SAMPLES, f"{what}: {missing}{skipped}", remember=False)
    return Judgement(verdict=Verdict.WAIT)


def _falls_short(trial: Trial, seen: TrialSeen, *, certain: bool) -> Judgement | None:
    """`certain`: only what no further sample could make good."""
    errors = seen.errors / seen.asked
    if (_bounds(seen.errors, seen.asked)[0] if certain else errors) > trial.max_error_rate:
        detail = f"{errors:.3f} of {seen.asked} requests failed, limit {trial.max_error_rate}"
        return _failed(Reason.TRIAL_ERROR_RATE, detail)
    if seen.compared:
        agreement = seen.agreed / seen.compared
        if (_bounds(seen.agreed, seen.compared)[1] if certain else agreement) < trial.min_agreement:
            detail = f"{agreement:.3f} of {seen.compared} answers agree, {trial.min_agreement} needed"
            return _failed(Reason.AGREEMENT, detail)
    if certain:
        return None
    limit, shift = trial.max_confidence_shift, abs(seen.shift_mean or 0.0)
    if limit is not None and shift > limit:
        return _failed(Reason.CONFIDENCE_SHIFT, f"{seen.shift_mean:+.3g} on average, limit {limit}")
    limit = trial.max_latency_ratio
    if limit is not None and seen.latency_ratio is not None and seen.latency_ratio > limit:
        detail = f"p95 is {seen.latency_ratio:.2f} times the current version's, limit {limit}"
        return _failed(Reason.TRIAL_LATENCY, detail)
    return None


_SURE = 3.29  # standard deviations: one wrong early verdict in a thousand


def _bounds(part: int, whole: int) -> tuple[float, float]:
    """Between which shares the true one lies (Wilson, JASA 22, 1927). `whole` is above 0."""
    z2 = _SURE * _SURE
    share, width = part / whole, whole + z2
    middle = (part + z2 / 2) / width
    spread = _SURE / width * math.sqrt(whole * share * (1 - share) + z2 / 4)
    return middle - spread, middle + spread


def _workload(view: View, spec: WorkloadSpec | None, assignment: Assignment | None) -> tuple[Step, ...]:
    attempt = view.record.attempt
    if attempt:
        return _attempt(view, attempt, spec, assignment)
    healing = _heal(view)
    if assignment is None:
        return healing
    if spec is None:
        return _remove(view)
    return healing + _wanted(view, spec, assignment)


def _attempt(
    view: View, attempt: Attempt, spec: WorkloadSpec | None, assignment: Assignment | None
) -> tuple[Step, ...]:
    undo = _taken_back(attempt, spec, assignment)
    if undo is not None:
        return (undo,)
    if attempt.phase is Phase.SOAK and (view.soak is not None or view.running == attempt.spec.bundle.digest):
        return _soaking(view, attempt)
    if assignment is None and attempt.phase in _NOT_YET_SERVING:
        return _heal(view)
    if attempt.phase is Phase.TRIAL and attempt.spec.trial and view.trial is not None:
        return _heal(view) + _trying(attempt, judge_trial(attempt.spec.trial, view.trial))
    if attempt.phase in {Phase.SELF_TEST, Phase.TRIAL} and attempt.trials >= TRIALS_TOLERATED:
        detail = f"the trial was begun {attempt.trials} times, and every time a restart of the agent cut it short"
        return (_undo(attempt, Reason.TRIAL_CUT_SHORT, detail, rest=True),)
    return _heal(view) + _continue(attempt)


def _taken_back(attempt: Attempt, spec: WorkloadSpec | None, assignment: Assignment | None) -> Step | None:
    """Whether an attempt is to be undone whatever it has come to."""
    if attempt.undoing:
        why = attempt.undoing
        return _undo(attempt, why.reason, why.detail, remember=why.remember, rest=why.rest)
    if assignment and (spec is None or spec.bundle.digest != attempt.spec.bundle.digest):
        return _undo(attempt, Reason.SUPERSEDED, f"assignment {assignment.sequence} asks for something else")
    if len(attempt.boots) - max(0, attempt.trials - 1) > REBOOTS_TOLERATED:  # what a long trial met is not its doing
        detail = f"the machine rebooted {len(attempt.boots) - 1} times while this was being activated"
        return _undo(attempt, Reason.REBOOT_LOOP, detail, remember=True)
    return None


def _trying(attempt: Attempt, judgement: Judgement) -> tuple[Step, ...]:
    match judgement.verdict:
        case Verdict.WAIT:
            return ()
        case Verdict.PASSED:
            return tuple(_step(kind, attempt) for kind in (StepKind.SWITCH, StepKind.SOAK))
        case Verdict.FAILED:
            remember = judgement.remember
            return (_undo(attempt, judgement.reason, judgement.detail, remember=remember, rest=not remember),)


def _soaking(view: View, attempt: Attempt) -> tuple[Step, ...]:
    if view.soak is None:  # it was cut short before the watch began
        return (_step(StepKind.SOAK, attempt),)
    judgement = judge_soak(attempt.spec, view.soak)
    if view.crash_loop:
        return (_undo(attempt, Reason.CRASH_LOOP, "crashed again and again", remember=True),)
    match judgement.verdict:
        case Verdict.WAIT:
            return ()
        case Verdict.PASSED:
            return (_step(StepKind.COMMIT, attempt),)
        case Verdict.FAILED:
            return (_undo(attempt, judgement.reason, judgement.detail, remember=True),)


def _continue(attempt: Attempt) -> tuple[Step, ...]:
    """From the phase reached. A runner does not outlive its agent's attempt: activation starts again at the self-test.
    A trial that was passed is not held again.
    """
    order = [phase for phase, _ in _PIPELINE]
    start = min(order.index(attempt.phase), order.index(Phase.SELF_TEST))
    passed = order.index(attempt.phase) > order.index(Phase.TRIAL)
    ahead = _ahead(start, tried=attempt.spec.trial is not None and not passed)
    return tuple(_step(kind, attempt) for kind in ahead)


def _ahead(start: int, *, tried: bool) -> tuple[StepKind, ...]:
    """The steps from there on, as far as they are decided: a trial decides what comes after it."""
    kinds = tuple(kind for _, kind in _PIPELINE[start:])
    if not tried:
        return tuple(kind for kind in kinds if kind is not StepKind.TRIAL)
    return kinds[: kinds.index(StepKind.TRIAL) + 1]


def _heal(view: View) -> tuple[Step, ...]:
    record = view.record
    if record.committed is None:
        return ()
    if view.crash_loop and record.previous and not record.failure(record.previous.ref.digest):
        return (Step(kind=StepKind.FALL_BACK, workload=record.name, reason=Reason.CRASH_LOOP),)
    if view.running != record.committed.ref.digest and not view.restarting:
        return (Step(kind=StepKind.START, workload=record.name),)
    return ()


def _remove(view: View) -> tuple[Step, ...]:
    if view.record.committed is None and not view.running:
        return ()
    return (Step(kind=StepKind.REMOVE, workload=view.record.name),)


def _wanted(view: View, spec: WorkloadSpec, assignment: Assignment) -> tuple[Step, ...]:
    record, digest = view.record, spec.bundle.digest
    if record.committed and record.committed.ref.digest == digest:
        return _confirm(record, spec, assignment)
    refusal = record.refusal
    if refusal and refusal.digest == digest and refusal.sequence >= assignment.sequence:
        return ()
    failure = record.failure(digest)
    if failure:
        return (
            Step(
                kind=StepKind.REFUSE,
                workload=spec.name,
                sequence=assignment.sequence,
                spec=spec,
                reason=Reason.FAILED_BEFORE,
                detail=f"{failure.reason}: {failure.detail}",
            ),
        )
    ahead = _ahead(0, tried=spec.trial is not None)
    return tuple(Step(kind=kind, workload=spec.name, sequence=assignment.sequence, spec=spec) for kind in ahead)


def _confirm(record: WorkloadRecord, spec: WorkloadSpec, assignment: Assignment) -> tuple[Step, ...]:
    if record.confirmed >= assignment.sequence:
        return ()
    return (Step(kind=StepKind.CONFIRM, workload=record.name, sequence=assignment.sequence, spec=spec),)


def _step(kind: StepKind, attempt: Attempt) -> Step:
    return Step(kind=kind, workload=attempt.spec.name, sequence=attempt.sequence, spec=attempt.spec)


def _undo(attempt: Attempt, reason: str, detail: str, *, remember: bool = False, rest: bool = False) -> Step:
    return Step(
        kind=StepKind.UNDO,
        workload=attempt.spec.name,
        sequence=attempt.sequence,
        spec=attempt.spec,
        reason=reason,
        detail=detail,
        remember=remember,
        rest=rest,
    )
