# SPDX-License-Identifier: Apache-2.0
"""How a workload's record changes, and what is said about it. Pure: old record in, new record with `pending` out."""

from __future__ import annotations

from msgspec.structs import replace

from skerry.agent.state import (
    Attempt,
    Failure,
    Pending,
    Phase,
    Refusal,
    Release,
    Undoing,
    WorkloadRecord,
)
from skerry.wire.v1.device import BundleRef, WorkloadSpec
from skerry.wire.v1.report import WorkloadReport, WorkloadState

_STATE_OF = {
    Phase.FETCH: WorkloadState.FETCHING,
    Phase.UNPACK: WorkloadState.FETCHING,
    Phase.SELF_TEST: WorkloadState.SELF_TESTING,
    Phase.TRIAL: WorkloadState.TRYING,
    Phase.SWITCH: WorkloadState.SWITCHING,
    Phase.SOAK: WorkloadState.SOAKING,
}
_ACTIVATION = frozenset({Phase.SELF_TEST, Phase.TRIAL, Phase.SWITCH, Phase.SOAK})
FAILURES_KEPT = 256


def began(record: WorkloadRecord, spec: WorkloadSpec, *, sequence: int, now: float) -> WorkloadRecord:
    attempt = Attempt(spec=spec, sequence=sequence, phase=Phase.FETCH, started=now)
    record = replace(record, attempt=attempt, refusal=None)
    return _said(record, "update-began", WorkloadState.FETCHING, spec=spec, sequence=sequence, now=now)


def readdressed(record: WorkloadRecord, spec: WorkloadSpec, *, sequence: int) -> WorkloadRecord:
    """The hub asks for the bundle that is being attempted anyway, under another assignment or with another soak."""
    if record.attempt is None:
        return record
    return replace(record, attempt=replace(record.attempt, spec=spec, sequence=sequence), pending=())


def reached(record: WorkloadRecord, phase: Phase, *, now: float, boot: str = "", detail: str = "") -> WorkloadRecord:
    """An attempt enters a phase. `boot` is remembered from activation on."""
    attempt = record.attempt
    if attempt is None:
        return record
    boots = attempt.boots
    if phase in _ACTIVATION and boot and boot not in boots:
        boots = (*boots, boot)
    trials = attempt.trials + (phase is Phase.TRIAL and attempt.spec.trial is not None)
    moved = replace(record, attempt=replace(attempt, phase=phase, boots=boots, trials=trials), pending=())
    if _STATE_OF[phase] is _STATE_OF[attempt.phase] and phase is not attempt.phase:
        return moved
    return _said(
        moved, "", _STATE_OF[phase], spec=attempt.spec, sequence=attempt.sequence, now=now, variant=attempt.variant,
        detail=detail,
    )  # fmt: skip


def planned(record: WorkloadRecord, *, variant: str, floor_seq: int) -> WorkloadRecord:
    """Which variant an attempt is about became known."""
    if record.attempt is None:
        return record
    return replace(record, attempt=replace(record.attempt, variant=variant, floor_seq=floor_seq), pending=())


def committed(record: WorkloadRecord, *, now: float) -> WorkloadRecord:
    attempt = record.attempt
    if attempt is None:
        return record
    spec = attempt.spec
    release = Release(
        ref=spec.bundle,
        variant=attempt.variant,
        committed=now,
        rollout=spec.rollout,
        floor_seq=attempt.floor_seq,
        limits=spec.limits,
    )
    previous = record.committed
    if previous and _below_floor(previous.ref, release):
        previous = None
    record = replace(
        record, committed=release, previous=previous, attempt=None, refusal=None, confirmed=attempt.sequence
    )
    return _said(
        record,
        "committed",
        WorkloadState.COMMITTED,
        spec=spec,
        sequence=attempt.sequence,
        now=now,
        variant=release.variant,
    )


def _below_floor(ref: BundleRef, release: Release) -> bool:
    same = (ref.line, ref.model) == (release.ref.line, release.ref.model)
    return same and ref.release_seq < release.floor_seq


def undoing(record: WorkloadRecord, why: Undoing) -> WorkloadRecord:
    """Written before the first undo, so that an undo cut short is undone to its end."""
    if record.attempt is None:
        return record
    return replace(record, attempt=replace(record.attempt, undoing=why), pending=())


def undone(record: WorkloadRecord, *, now: float) -> WorkloadRecord:
    attempt = record.attempt
    if attempt is None or attempt.undoing is None:
        return record
    why = attempt.undoing
    failed = (
        _remember(record, attempt.spec.bundle.digest, why.reason, why.detail, now) if why.remember else record.failed
    )
    rests = why.remember or why.rest
    refusal = _refusal(attempt.spec, attempt.sequence, why.reason, why.detail) if rests else None
    record = replace(record, attempt=None, failed=failed, refusal=refusal)
    return _said(
        record, "undone", WorkloadState.UNDONE, spec=attempt.spec, sequence=attempt.sequence, now=now,
        variant=attempt.variant, reason=why.reason, detail=why.detail,
    )  # fmt: skip


def refused(
    record: WorkloadRecord, spec: WorkloadSpec, *, sequence: int, reason: str, detail: str, now: float
) -> WorkloadRecord:
    """Trust or fit said no. The attempt ends, and the question rests until the hub assigns anew."""
    record = replace(record, attempt=None, refusal=_refusal(spec, sequence, reason, detail))
    return _said(
        record, "refused", WorkloadState.REFUSED, spec=spec, sequence=sequence, now=now, reason=reason, detail=detail
    )


def fell_back(record: WorkloadRecord, *, reason: str, detail: str, sequence: int, now: float) -> WorkloadRecord:
    """The committed version is held to have failed; the one before it is the committed one now."""
    bad = record.committed
    if bad is None or record.previous is None:
        return record
    failed = _remember(record, bad.ref.digest, reason, detail, now)
    spec = WorkloadSpec(name=record.name, bundle=bad.ref, rollout=bad.rollout)
    record = replace(
        record,
        committed=record.previous,
        previous=None,
        failed=failed,
        refusal=_refusal(spec, sequence, reason, detail),
    )
    return _said(
        record, "fell-back", WorkloadState.FELL_BACK, spec=spec, sequence=sequence, now=now,
        variant=bad.variant, reason=reason, detail=detail,
    )  # fmt: skip


def confirmed(record: WorkloadRecord, spec: WorkloadSpec, *, sequence: int, now: float) -> WorkloadRecord:
    """The hub asked for what is committed already: say so under its new assignment. History has it already."""
    release = record.committed
    if release is None:
        return record
    record = replace(record, committed=replace(release, rollout=spec.rollout), confirmed=sequence)
    return _said(record, "", WorkloadState.COMMITTED, spec=spec, sequence=sequence, now=now, variant=release.variant)


def removed(record: WorkloadRecord, *, sequence: int, now: float) -> WorkloadRecord:
    """Nothing runs under this name any more. What failed here stays remembered."""
    release = record.committed
    if release is None:
        return replace(record, pending=())
    spec = WorkloadSpec(name=record.name, bundle=release.ref, rollout=release.rollout)
    record = replace(record, committed=None, previous=None, attempt=None, refusal=None)
    return _said(
        record, "removed", WorkloadState.REMOVED, spec=spec, sequence=sequence, now=now, variant=release.variant
    )


def _refusal(spec: WorkloadSpec, sequence: int, reason: str, detail: str) -> Refusal:
    return Refusal(digest=spec.bundle.digest, sequence=sequence, reason=reason, detail=detail)


def _remember(record: WorkloadRecord, digest: str, reason: str, detail: str, now: float) -> tuple[Failure, ...]:
    others = tuple(failure for failure in record.failed if failure.digest != digest)
    return (*others, Failure(digest=digest, reason=reason, detail=detail, at=now))[-FAILURES_KEPT:]


def _said(
    record: WorkloadRecord,
    kind: str,
    state: WorkloadState,
    *,
    spec: WorkloadSpec,
    sequence: int,
    now: float,
    variant: str = "",
    reason: str = "",
    detail: str = "",
) -> WorkloadRecord:
    """`record` with this one thing pending. `kind` empty: for the hub only, not for history."""
    running = record.committed.ref.digest if record.committed else ""
    if state is WorkloadState.SOAKING:
        running = spec.bundle.digest
    report = WorkloadReport(
        workload=record.name,
        digest=spec.bundle.digest,
        state=state,
        variant=variant,
        rollout=spec.rollout,
        reason=reason,
        detail=detail[:2000],
        running=running,
        sequence=sequence,
    )
    facts: dict[str, str | int | float | bool] = {  # enough to make the record again: `recovery`
        "workload": record.name,
        "bundle": spec.bundle.name,
        "target": spec.bundle.target,
        "digest": spec.bundle.digest,
        "release_seq": spec.bundle.release_seq,
        "sequence": sequence,
        "rollout": spec.rollout,
        "variant": variant,
        "reason": reason,
        "detail": detail[:2000],
        "running": running,
        "port": record.port,
    }
    pending = Pending(
        kind=kind, at=now, report=report, fields={key: value for key, value in facts.items() if value != ""}
    )
    return replace(record, pending=(pending,))
