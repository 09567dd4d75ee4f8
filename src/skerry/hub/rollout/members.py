# SPDX-License-Identifier: Apache-2.0
"""What a device's reports mean for its place in a rollout. Success needs a report; silence past the deadline is failure."""

from __future__ import annotations

from skerry.hub.domain.devices import WorkloadStatus
from skerry.hub.domain.rollouts import Member, MemberState, Outcome, RolloutRecord, Seen
from skerry.hub.rollout.actions import MarkDevice
from skerry.wire.v1.report import TERMINAL_FAILURES, WorkloadState

SILENT = "silent"  # nothing about the new bundle by the deadline
UNFINISHED = "unfinished"  # it had begun, but did not end by the deadline
REVOKED = "revoked"
SUPERSEDED = "superseded"

BY_THE_CLOCK = frozenset({SILENT, UNFINISHED})


def judge(member: Member, seen: Seen, rollout: RolloutRecord, now: float) -> MarkDevice | None:
    """The change of state the reports (or their absence) call for; None when the member stays as it is."""
    match member.state:
        case MemberState.ASSIGNED:
            return _judge_assigned(member, seen, rollout, now)
        case MemberState.WAITING:
            return _mark(member, MemberState.FAILED, Outcome.FAILED, REVOKED) if seen.revoked else None
        case MemberState.COMMITTED:
            return _judge_committed(member, seen, rollout)
        case MemberState.FAILED:
            return _judge_failed(member, seen, rollout)
        case MemberState.UNDOING:
            back = is_back(member, seen, rollout)
            return _mark(member, MemberState.UNDONE, member.outcome, member.reason) if back else None
        case MemberState.UNDONE | MemberState.SUPERSEDED:
            return None


def heard(member: Member, seen: Seen, rollout: RolloutRecord) -> WorkloadStatus | None:
    """What the device said about the new bundle since it was told to run it for this rollout."""
    status = seen.status
    if status is None or member.assigned_at is None or status.digest != rollout.bundle.digest:
        return None
    ours = status.rollout == rollout.id or (not status.rollout and status.received >= member.assigned_at)
    return status if ours else None


def is_back(member: Member, seen: Seen, rollout: RolloutRecord) -> bool:
    """Proof that the device runs its previous bundle again, from the device itself."""
    previous = member.previous.digest if member.previous else ""
    status = seen.status
    if seen.applied_version >= member.desired_version > 0 and (status.running if status else "") == previous:
        return True
    if status is None or member.undo_at is None:
        return False
    if status.digest == rollout.bundle.digest and status.state in TERMINAL_FAILURES:
        # It went back by itself, or never began, and leaves that digest alone whichever assignment it still holds.
        return heard(member, seen, rollout) is not None and status.running == previous
    if not previous:
        return status.state is WorkloadState.REMOVED and not status.running and status.received >= member.undo_at
    return status.digest == previous and status.state is WorkloadState.COMMITTED and status.rollout == rollout.id


def _judge_assigned(member: Member, seen: Seen, rollout: RolloutRecord, now: float) -> MarkDevice | None:
    status = heard(member, seen, rollout)
    if status is not None and _committed(status):
        return _mark(member, MemberState.COMMITTED, Outcome.COMMITTED, "")
    if status is not None and status.state in TERMINAL_FAILURES:
        return _mark(member, MemberState.FAILED, Outcome.FAILED, _why(status))
    if seen.revoked:
        return _mark(member, MemberState.FAILED, Outcome.FAILED, REVOKED)
    if seen.desired_rollout != rollout.id:
        return _mark(member, MemberState.FAILED, Outcome.FAILED, SUPERSEDED)
    if now >= (member.assigned_at or 0.0) + rollout.spec.deadline_seconds:
        return _mark(member, MemberState.FAILED, Outcome.FAILED, UNFINISHED if status else SILENT)
    return None


def _judge_committed(member: Member, seen: Seen, rollout: RolloutRecord) -> MarkDevice | None:
    status = heard(member, seen, rollout)
    if status is None or status.state not in TERMINAL_FAILURES or seen.desired_rollout != rollout.id:
        return None
    return _mark(member, MemberState.FAILED, Outcome.FAILED, _why(status), event="fell-back")


def _judge_failed(member: Member, seen: Seen, rollout: RolloutRecord) -> MarkDevice | None:
    """Only a verdict the clock gave is corrected by a late report: what a device itself said stands."""
    status = heard(member, seen, rollout)
    if status is None or member.reason not in BY_THE_CLOCK:
        return None
    if _committed(status):
        return _mark(member, MemberState.COMMITTED, Outcome.COMMITTED, "", event="committed-late")
    if status.state in TERMINAL_FAILURES:
        return _mark(member, MemberState.FAILED, Outcome.FAILED, _why(status))
    return None


def _committed(status: WorkloadStatus) -> bool:
    return status.state is WorkloadState.COMMITTED and status.running in {"", status.digest}


def _why(status: WorkloadStatus) -> str:
    return f"{status.state}: {status.reason}" if status.reason else str(status.state)


def _mark(member: Member, state: MemberState, outcome: Outcome, reason: str, *, event: str = "") -> MarkDevice:
    return MarkDevice(device_id=member.device_id, state=state, outcome=outcome, reason=reason, event=event)
