# SPDX-License-Identifier: Apache-2.0
"""One report, or its absence, and what it makes of a member."""

from __future__ import annotations

import pytest

from skerry.hub.domain import Member, MemberState, Outcome, RolloutRecord, Seen, WorkloadStatus
from skerry.hub.rollout.members import is_back, judge
from skerry.wire.v1.operator import RolloutSpec, RolloutStatus
from skerry.wire.v1.report import WorkloadState
from unit.hub.rollout_world import bundle

T = 1000.0
NEW, OLD = bundle(2).digest, bundle(1).digest
ROLLOUT = RolloutRecord(
    id="r-1",
    spec=RolloutSpec(workload="digits", bundle="digits:2.0", deadline_seconds=60.0),
    selector={},
    bundle=bundle(2),
    status=RolloutStatus.RUNNING,
    created=T,
    created_by="anna",
)


def member(state: MemberState, **fields: object) -> Member:
    base = {
        "device_id": "d1",
        "name": "edge-1",
        "stage": 0,
        "state": state,
        "previous": bundle(1),
        "assigned_at": T,
        "desired_version": 5,
    }
    return Member(**{**base, **fields})  # type: ignore[arg-type]


def said(state: WorkloadState, **fields: object) -> WorkloadStatus:
    base = {"device_id": "d1", "workload": "digits", "digest": NEW, "state": state, "rollout": "r-1", "received": T + 1}
    return WorkloadStatus(**{**base, **fields})  # type: ignore[arg-type]


def seen(status: WorkloadStatus | None = None, **fields: object) -> Seen:
    return Seen(**{"status": status, "desired": bundle(2), "desired_rollout": "r-1", **fields})  # type: ignore[arg-type]


def verdict(before: Member, what: Seen, now: float = T + 10) -> tuple[MemberState, str] | None:
    mark = judge(before, what, ROLLOUT, now)
    return None if mark is None else (mark.state, mark.reason)


ASSIGNED = member(MemberState.ASSIGNED)


def test_success_needs_a_report_of_this_rollout_about_this_digest():
    committed = WorkloadState.COMMITTED
    assert verdict(ASSIGNED, seen(said(committed, running=NEW))) == (MemberState.COMMITTED, "")
    assert verdict(ASSIGNED, seen(said(committed, rollout=""))) == (MemberState.COMMITTED, "")
    assert verdict(ASSIGNED, seen(said(committed, rollout="", received=T - 1))) is None
    assert verdict(ASSIGNED, seen(said(committed, rollout="r-0"))) is None
    assert verdict(ASSIGNED, seen(said(committed, digest=OLD))) is None
    assert verdict(ASSIGNED, seen(said(committed, running=OLD))) is None
    assert verdict(ASSIGNED, seen()) is None


@pytest.mark.parametrize("state", [WorkloadState.UNDONE, WorkloadState.REFUSED, WorkloadState.FELL_BACK])
def test_each_kind_of_failure_fails_with_its_reason(state):
    status = said(state, reason="SKY-1005")
    assert verdict(ASSIGNED, seen(status)) == (MemberState.FAILED, f"{state}: SKY-1005")
    assert verdict(member(MemberState.COMMITTED), seen(status)) == (MemberState.FAILED, f"{state}: SKY-1005")


@pytest.mark.parametrize(
    "state", [WorkloadState.FETCHING, WorkloadState.SELF_TESTING, WorkloadState.SWITCHING, WorkloadState.SOAKING]
)
def test_being_on_the_way_is_neither_success_nor_failure_until_the_deadline(state):
    assert verdict(ASSIGNED, seen(said(state)), T + 59.9) is None
    assert verdict(ASSIGNED, seen(said(state)), T + 60) == (MemberState.FAILED, "unfinished")
    assert verdict(ASSIGNED, seen(), T + 60) == (MemberState.FAILED, "silent")


def test_success_reported_by_the_deadline_counts_even_when_it_is_looked_at_later():
    assert verdict(ASSIGNED, seen(said(WorkloadState.COMMITTED)), T + 9999) == (MemberState.COMMITTED, "")


def test_revoked_or_taken_over_is_failed():
    assert verdict(ASSIGNED, seen(revoked=True)) == (MemberState.FAILED, "revoked")
    assert verdict(ASSIGNED, seen(desired_rollout="r-2")) == (MemberState.FAILED, "superseded")


def test_what_the_device_said_stands_but_the_clocks_verdict_is_corrected():
    late = seen(said(WorkloadState.COMMITTED))
    silent = member(MemberState.FAILED, outcome=Outcome.FAILED, reason="silent")
    assert verdict(silent, late) == (MemberState.COMMITTED, "")
    assert verdict(silent, seen(said(WorkloadState.UNDONE))) == (MemberState.FAILED, "undone")
    assert verdict(silent, seen(said(WorkloadState.FETCHING))) is None
    own = member(MemberState.FAILED, outcome=Outcome.FAILED, reason="undone: SKY-1005")
    assert verdict(own, late) is None


def test_a_fall_back_under_something_newer_is_not_this_rollouts_concern():
    status = said(WorkloadState.FELL_BACK)
    assert verdict(member(MemberState.COMMITTED), seen(status, desired_rollout="r-2")) is None


UNDOING = member(MemberState.UNDOING, undo_at=T + 100)


def back(what: Seen, before: Member = UNDOING) -> bool:
    return is_back(before, what, ROLLOUT)


def test_back_is_proven_by_the_device():
    home = said(WorkloadState.COMMITTED, digest=OLD, running=OLD, received=T + 101)
    assert back(seen(home))
    assert not back(seen(said(WorkloadState.COMMITTED, digest=OLD, running=OLD, rollout="r-0")))
    assert not back(seen())
    assert not back(seen(said(WorkloadState.COMMITTED, running=NEW)))


def test_back_by_itself_when_it_failed_and_runs_the_old_one():
    assert back(seen(said(WorkloadState.UNDONE, running=OLD)))
    assert not back(seen(said(WorkloadState.UNDONE, running="")))
    assert not back(seen(said(WorkloadState.UNDONE, running=OLD, rollout="r-0")))


def test_back_when_the_undo_is_in_force_and_the_old_one_runs():
    old = said(WorkloadState.COMMITTED, digest=OLD, running=OLD, rollout="r-0")
    assert back(seen(old, applied_version=5))
    assert not back(seen(old, applied_version=4))
    assert not back(seen(said(WorkloadState.SOAKING, running=NEW), applied_version=5))


def test_back_to_nothing_after_a_first_install():
    first = member(MemberState.UNDOING, undo_at=T + 100, previous=None)
    assert back(seen(said(WorkloadState.REMOVED, received=T + 101)), first)
    assert not back(seen(said(WorkloadState.REMOVED, received=T + 99)), first)
    assert not back(seen(said(WorkloadState.COMMITTED, running=NEW)), first)
    assert back(seen(applied_version=5), first)
    assert back(seen(said(WorkloadState.REFUSED)), first)


def test_ended_members_are_left_alone():
    for state in (MemberState.UNDONE, MemberState.SUPERSEDED):
        assert verdict(member(state), seen(said(WorkloadState.COMMITTED)), T + 9999) is None
