# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from msgspec.structs import replace

from skerry.agent.reconcile import (
    REBOOTS_TOLERATED,
    Local,
    Soak,
    StepKind,
    TrialSeen,
    Verdict,
    View,
    judge_soak,
    judge_trial,
    reconcile,
)
from skerry.agent.state import Attempt, Failure, Phase, Refusal, Release, Undoing, WorkloadRecord
from skerry.wire.v1.device import Assignment, BundleRef, Trial, TrialMode, WorkloadSpec

NOW = 1_000.0
FORWARD = ["fetch", "unpack", "self-test", "switch", "soak"]


def ref(version: int) -> BundleRef:
    digest = f"sha256:{version:064d}"
    return BundleRef(
        line="l", model="m", version=str(version), digest=digest, release_seq=version, target=f"l/m/{version}.json"
    )


def spec(version: int, **fields) -> WorkloadSpec:
    return WorkloadSpec(name="w", bundle=ref(version), **{"soak_seconds": 10.0, **fields})


def assigned(*specs: WorkloadSpec, sequence: int = 5, expires: float = NOW + 1) -> Assignment:
    return Assignment(device_id="d", sequence=sequence, issued=0.0, expires=expires, workloads=specs)


def release(version: int) -> Release:
    return Release(ref=ref(version), variant="fp32", committed=1.0)


def attempt(version: int, phase: Phase, **fields) -> Attempt:
    return Attempt(**{"spec": spec(version), "sequence": 5, "phase": phase, "started": 1.0, **fields})


def record(**fields) -> WorkloadRecord:
    return WorkloadRecord(name="w", **fields)


def decide(assignment: Assignment | None, made: WorkloadRecord, *, running: int = 0, **view) -> list[str]:
    seen = View(record=made, running=ref(running).digest if running else "", **view)
    return [step.kind.value for step in reconcile(assignment, Local(workloads=(seen,)), NOW)]


def test_new_workload_goes_all_the_way():
    steps = reconcile(assigned(spec(1)), Local(), NOW)
    assert [step.kind for step in steps] == FORWARD
    assert {step.sequence for step in steps} == {5}


def test_without_assignment_the_committed_version_is_started_and_nothing_removed():
    assert decide(None, record(committed=release(1))) == ["start"]
    assert decide(None, record(committed=release(1)), running=1) == []


def test_expired_assignment_installs_and_removes_nothing():
    old = assigned(spec(2), expires=NOW)
    assert decide(old, record(committed=release(1)), running=1) == []
    assert decide(assigned(expires=NOW), record(committed=release(1)), running=1) == []


def test_committed_and_assigned_is_confirmed_once_per_assignment():
    made = record(committed=release(1), confirmed=4)
    assert decide(assigned(spec(1)), made, running=1) == ["confirm"]
    assert decide(assigned(spec(1)), replace(made, confirmed=5), running=1) == []


def test_no_longer_assigned_is_removed():
    assert decide(assigned(), record(committed=release(1)), running=1) == ["remove"]
    assert decide(assigned(), record()) == []


def test_failed_digest_is_refused_for_ever_and_told_once_per_assignment():
    failed = Failure(digest=ref(2).digest, reason="latency", detail="slow", at=1.0)
    made = record(committed=release(1), failed=(failed,))
    steps = reconcile(assigned(spec(2)), Local(workloads=(View(record=made, running=ref(1).digest),)), NOW)
    assert [(step.kind, step.reason) for step in steps] == [(StepKind.REFUSE, "failed-before")]
    told = replace(made, refusal=Refusal(digest=ref(2).digest, sequence=5, reason="failed-before", detail=""))
    assert decide(assigned(spec(2)), told, running=1) == []
    assert decide(assigned(spec(2), sequence=6), told, running=1) == ["refuse"]


def test_what_trust_refused_is_asked_again_only_under_a_new_assignment():
    refusal = Refusal(digest=ref(2).digest, sequence=5, reason="freeze", detail="")
    made = record(committed=release(1), refusal=refusal)
    assert decide(assigned(spec(2)), made, running=1) == []
    assert decide(assigned(spec(2), sequence=6), made, running=1) == FORWARD


@pytest.mark.parametrize(
    ("phase", "steps"),
    [
        (Phase.FETCH, FORWARD),
        (Phase.UNPACK, FORWARD[1:]),
        (Phase.SELF_TEST, FORWARD[2:]),
        (Phase.SWITCH, FORWARD[2:]),
        (Phase.SOAK, FORWARD[2:]),
    ],
)
def test_after_a_restart_the_committed_version_serves_first_and_the_attempt_goes_on(phase, steps):
    made = record(committed=release(1), attempt=attempt(2, phase))
    assert decide(assigned(spec(2)), made) == ["start", *steps]


@pytest.mark.parametrize("phase", Phase)
def test_without_assignment_only_what_served_before_serves_again(phase):
    """Expired, or its key disowned: nothing that never ran here begins to run by it."""
    made = record(committed=release(1), attempt=attempt(2, phase))
    goes_on = FORWARD[2:] if phase in {Phase.SWITCH, Phase.SOAK} else []
    assert decide(None, made) == ["start", *goes_on]
    assert decide(assigned(spec(2), expires=0.0), made) == ["start", *goes_on]


def test_attempt_for_something_no_longer_wanted_is_taken_back_without_blame():
    made = record(committed=release(1), attempt=attempt(2, Phase.SOAK))
    seen = View(record=made, running=ref(2).digest, soak=Soak(elapsed=1.0))
    for wanted in (assigned(spec(3), sequence=6), assigned(sequence=6)):
        (step,) = reconcile(wanted, Local(workloads=(seen,)), NOW)
        assert (step.kind, step.reason, step.remember) == (StepKind.UNDO, "superseded", False)


def test_undo_that_was_begun_is_ended_whatever_is_assigned():
    made = record(attempt=attempt(2, Phase.SOAK, undoing=Undoing(reason="latency", detail="p95", remember=True)))
    for assignment in (None, assigned(spec(2)), assigned(spec(3))):
        (step,) = reconcile(assignment, Local(workloads=(View(record=made),)), NOW)
        assert (step.kind, step.reason, step.detail, step.remember) == (StepKind.UNDO, "latency", "p95", True)


def test_machine_that_reboots_again_and_again_undoes():
    boots = tuple(str(number) for number in range(REBOOTS_TOLERATED + 1))
    made = record(attempt=attempt(2, Phase.SELF_TEST, boots=boots))
    (step,) = reconcile(assigned(spec(2)), Local(workloads=(View(record=made),)), NOW)
    assert (step.reason, step.remember) == ("reboot-loop", True)
    fewer = record(attempt=attempt(2, Phase.SELF_TEST, boots=boots[1:]))
    assert decide(assigned(spec(2)), fewer) == FORWARD[2:]


def test_soak_waits_commits_or_undoes():
    made = record(committed=release(1), attempt=attempt(2, Phase.SOAK))
    wanted = assigned(spec(2))
    assert decide(wanted, made, running=2, soak=Soak(elapsed=1.0)) == []
    assert decide(wanted, made, running=2, soak=Soak(elapsed=10.0)) == ["commit"]
    assert decide(wanted, made, running=2) == ["soak"]
    assert decide(wanted, made, running=2, soak=Soak(elapsed=1.0, probe_failures=1)) == ["undo"]
    assert decide(wanted, made, soak=Soak(elapsed=1.0, crashes=1)) == ["undo"]


def test_crash_loop_falls_back_unless_there_is_nothing_good_to_fall_back_to():
    made = record(committed=release(2), previous=release(1))
    assert decide(None, made, crash_loop=True) == ["fall-back"]
    assert decide(None, record(committed=release(2)), crash_loop=True) == ["start"]
    failed = Failure(digest=ref(1).digest, reason="x", detail="", at=0.0)
    assert decide(None, replace(made, failed=(failed,)), crash_loop=True) == ["start"]
    assert decide(None, record(committed=release(2)), crash_loop=True, restarting=True) == []


def test_supervisor_that_is_about_to_restart_is_left_alone():
    assert decide(None, record(committed=release(1)), restarting=True) == []


@pytest.mark.parametrize(
    ("soak", "verdict", "reason"),
    [
        (Soak(elapsed=9.9), Verdict.WAIT, ""),
        (Soak(elapsed=10.0), Verdict.PASSED, ""),
        (Soak(elapsed=0.1, crashes=1), Verdict.FAILED, "crashed-in-soak"),
        (Soak(elapsed=0.1, probe_failures=1), Verdict.FAILED, "probe-failed"),
        (Soak(elapsed=0.1, requests=19, errors=19), Verdict.WAIT, ""),
        (Soak(elapsed=0.1, requests=20, errors=2), Verdict.FAILED, "error-rate"),
        (Soak(elapsed=10.0, requests=3, errors=1), Verdict.FAILED, "error-rate"),
        (Soak(elapsed=10.0, requests=100, errors=5), Verdict.PASSED, ""),
        (Soak(elapsed=5.0, latency_p95_ms=99.0), Verdict.WAIT, ""),
        (Soak(elapsed=10.0, latency_p95_ms=50.1), Verdict.FAILED, "latency"),
        (Soak(elapsed=10.0, latency_p95_ms=50.0), Verdict.PASSED, ""),
    ],
)
def test_judgement_of_a_soak(soak, verdict, reason):
    judged = judge_soak(spec(1, max_error_rate=0.05, max_latency_p95_ms=50.0), soak)
    assert (judged.verdict, judged.reason) == (verdict, reason)


# --- trials

TRIAL = Trial(seconds=60.0, longest_seconds=600.0, min_samples=20)


def seen(elapsed: float = 60.0, *, asked: int = 100, **fields) -> TrialSeen:
    return TrialSeen(**{"elapsed": elapsed, "asked": asked, "compared": asked, "agreed": asked, **fields})


def test_a_trial_stands_between_self_test_and_switch():
    made = record(committed=release(1))
    wanted = assigned(spec(2, trial=TRIAL))
    assert decide(wanted, made, running=1) == ["fetch", "unpack", "self-test", "trial"]
    assert decide(assigned(spec(2)), made, running=1) == FORWARD


@pytest.mark.parametrize(
    ("phase", "what", "steps"),
    [
        (Phase.SELF_TEST, None, ["self-test", "trial"]),
        (Phase.TRIAL, None, ["self-test", "trial"]),  # the agent was killed in it: it is held again
        (Phase.TRIAL, seen(elapsed=1), []),
        (Phase.TRIAL, seen(), ["switch", "soak"]),
        (Phase.TRIAL, seen(agreed=90), ["undo"]),
        (Phase.SWITCH, None, ["self-test", "switch", "soak"]),  # passed: not held again
        (Phase.SOAK, None, ["self-test", "switch", "soak"]),
    ],
)
def test_an_attempt_with_a_trial_goes_on_from_where_it_was(phase, what, steps):
    wanted = spec(2, trial=TRIAL)
    made = record(committed=release(1), attempt=attempt(2, phase, spec=wanted))
    assert decide(assigned(wanted), made, running=1, trial=what) == steps


def test_a_trial_that_is_cut_short_again_and_again_is_given_up_and_holds_nothing_against_the_bundle():
    wanted = spec(2, trial=TRIAL)
    for phase in (Phase.SELF_TEST, Phase.TRIAL):
        made = record(committed=release(1), attempt=attempt(2, phase, spec=wanted, trials=5))
        (undo,) = reconcile(assigned(wanted), Local(workloads=(View(record=made, running=ref(1).digest),)), NOW)
        assert (undo.kind, undo.reason, undo.remember, undo.rest) == (StepKind.UNDO, "trial-cut-short", False, True)
    held = record(committed=release(1), attempt=attempt(2, Phase.TRIAL, spec=wanted, trials=5))
    assert decide(assigned(wanted), held, running=1, trial=seen(elapsed=1)) == []  # the last one may still end


def test_reboots_that_a_long_trial_meets_are_no_reboot_loop_and_others_are():
    wanted = spec(2, trial=TRIAL)

    def after(boots: int, trials: int, phase: Phase) -> str:
        named = tuple(str(number) for number in range(boots))
        made = record(attempt=attempt(2, phase, spec=wanted, boots=named, trials=trials))
        (first, *_) = reconcile(assigned(wanted), Local(workloads=(View(record=made),)), NOW)
        return first.reason

    assert after(4, 4, Phase.TRIAL) == ""
    assert after(4, 1, Phase.SOAK) == "reboot-loop"
    assert after(4, 0, Phase.SELF_TEST) == "reboot-loop"
    assert after(6, 3, Phase.SOAK) == "reboot-loop"


def test_a_trial_waits_for_an_assignment_to_be_in_force_before_it_leads_to_a_switch():
    wanted = spec(2, trial=TRIAL)
    made = record(committed=release(1), attempt=attempt(2, Phase.TRIAL, spec=wanted))
    assert decide(assigned(wanted, expires=NOW), made, running=1, trial=seen()) == []


def test_the_current_version_is_kept_running_during_a_trial():
    wanted = spec(2, trial=TRIAL)
    made = record(committed=release(1), attempt=attempt(2, Phase.TRIAL, spec=wanted))
    assert decide(assigned(wanted), made, trial=seen(elapsed=1)) == ["start"]


def test_another_assignment_ends_a_trial_and_holds_nothing_against_the_bundle():
    made = record(committed=release(1), attempt=attempt(2, Phase.TRIAL, spec=spec(2, trial=TRIAL)))
    view = View(record=made, running=ref(1).digest, trial=seen())
    (undo, *_) = reconcile(assigned(spec(3)), Local(workloads=(view,)), NOW)
    assert (undo.kind, undo.reason, undo.remember) == (StepKind.UNDO, "superseded", False)


@pytest.mark.parametrize(
    ("what", "verdict", "reason"),
    [
        (seen(elapsed=59.9), Verdict.WAIT, ""),
        (seen(), Verdict.PASSED, ""),
        (seen(asked=19), Verdict.WAIT, ""),
        (seen(elapsed=600, asked=19), Verdict.FAILED, "too-few-samples"),
        (
            seen(elapsed=600, compared=0, agreed=0),
            Verdict.FAILED,
            "too-few-samples",
        ),  # every copy was dropped or failed
        (seen(errors=2), Verdict.FAILED, "trial-error-rate"),
        (seen(errors=1), Verdict.PASSED, ""),
        (seen(elapsed=1, errors=3), Verdict.WAIT, ""),  # of a hundred: may still be chance
        (seen(elapsed=1, asked=20, errors=20, compared=0, agreed=0), Verdict.FAILED, "trial-error-rate"),
        (seen(elapsed=1, asked=40, errors=20, compared=20, agreed=20), Verdict.FAILED, "trial-error-rate"),
        (seen(agreed=97), Verdict.FAILED, "agreement"),
        (seen(agreed=98), Verdict.PASSED, ""),
        (seen(elapsed=1, agreed=95), Verdict.WAIT, ""),
        (seen(elapsed=1, agreed=70), Verdict.FAILED, "agreement"),  # no later answer could make that good
        (seen(shift_mean=-9.0, latency_ratio=99.0), Verdict.PASSED, ""),  # no limit, no failure
        (seen(elapsed=1, crashed="it ended with SIGSEGV"), Verdict.FAILED, "crashed-in-trial"),
        (seen(elapsed=0, asked=0, against=False), Verdict.PASSED, ""),  # nothing to compare it with
    ],
)
def test_judging_a_trial_by_shadow(what, verdict, reason):
    judged = judge_trial(TRIAL, what)
    assert (judged.verdict, judged.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("what", "verdict", "reason"),
    [
        (seen(latency_ratio=1.2, shift_mean=0.5), Verdict.PASSED, ""),
        (seen(latency_ratio=1.3, shift_mean=0.5), Verdict.FAILED, "trial-latency"),
        (seen(latency_ratio=1.2, shift_mean=-0.6), Verdict.FAILED, "confidence-shift"),
        (seen(), Verdict.WAIT, ""),  # a limit on what is not measured is not met
        (seen(elapsed=600), Verdict.FAILED, "too-few-samples"),
    ],
)
def test_judging_a_trial_with_more_limits(what, verdict, reason):
    judged = judge_trial(replace(TRIAL, max_latency_ratio=1.2, max_confidence_shift=0.5), what)
    assert (judged.verdict, judged.reason) == (verdict, reason)


def test_a_canary_compares_nothing():
    canary = replace(TRIAL, mode=TrialMode.CANARY)
    assert judge_trial(canary, seen(compared=0, agreed=0)).verdict is Verdict.PASSED
    assert judge_trial(canary, seen(elapsed=1, errors=40, compared=0, agreed=0)).reason == "trial-error-rate"


def test_too_few_samples_are_no_failure_of_the_bundle():
    judged = judge_trial(TRIAL, seen(elapsed=600, asked=0))
    assert not judged.remember
    wanted = spec(2, trial=TRIAL)
    made = record(committed=release(1), attempt=attempt(2, Phase.TRIAL, spec=wanted))
    view = View(record=made, running=ref(1).digest, trial=seen(elapsed=600, asked=0))
    (undo,) = reconcile(assigned(wanted), Local(workloads=(view,)), NOW)
    assert (undo.remember, undo.rest) == (False, True)
