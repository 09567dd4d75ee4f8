# SPDX-License-Identifier: Apache-2.0
import io
import json
import sys

import msgspec
import pytest

from skerry import errors
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.operator import FleetView, RolloutSpec, RolloutStatus, StageStatus
from unit.cli.scripted import device, model, page, rollout, stage

DEPLOY = "deploy weld-defect:1.5.1 --workload weld --fleet body-shop"
ONE = "/api/v1/rollouts/r1"


def done(**changes):
    return rollout(RolloutStatus.DONE, stage(status=StageStatus.DONE, committed=2), **changes)


def test_deploy_sends_what_was_asked_and_says_how_to_watch(shell):
    shell.hub.on("POST", "/api/v1/rollouts", rollout(), status=201)
    ran = shell(
        f'{DEPLOY} --stages "1,25%,rest" --gate "latency_p95_ms<=10" --soak 10s --stage-soak 1m --deadline 10m'
        " --on-failure pause"
    )
    assert ran.code == 0
    assert "skerry rollout status r1 --watch" in ran.err
    spec = msgspec.json.decode(shell.hub.calls[0].body, type=RolloutSpec)
    assert [(s.name, s.count, s.percent, s.soak_seconds) for s in spec.stages] == [
        ("stage-1", 1, None, 60.0),
        ("stage-2", None, 25.0, 60.0),
        ("rest", None, None, 60.0),
    ]
    assert (spec.device_soak_seconds, spec.deadline_seconds, spec.on_failure) == (10.0, 600.0, "pause")
    assert spec.gates[0].max == 10.0


@pytest.mark.parametrize(
    "line",
    [
        "deploy weld:1 --workload weld",
        "deploy weld:1 --workload weld --fleet a -l b=c",
        "deploy weld --workload weld --fleet a",
        "deploy weld:1 --fleet a",
        "deploy weld:1 --workload weld --fleet a --canary 1 --stages 1,rest",
        "deploy weld:1 --workload weld --fleet a --canary 0",
        "deploy weld:1 --workload weld --fleet a --gate nonsense",
        "deploy weld:1 --workload weld --fleet a --soak soon",
        "deploy weld:1 --workload weld --fleet a --shadow 100% --split 5%",
        "deploy weld:1 --workload weld --fleet a --shadow 0%",
        "deploy weld:1 --workload weld --fleet a --shadow some",
        "deploy weld:1 --workload weld --fleet a --split 101%",
        "deploy weld:1 --workload weld --fleet a --trial-for 10s",
        "deploy weld:1 --workload weld --fleet a --trial-samples 10",
        "deploy weld:1 --workload weld --fleet a --shadow 1% --trial-for 2h",
        "deploy weld:1 --workload weld --fleet a --keep-warm sometimes",
    ],
)
def test_deploy_refuses_half_a_thought_without_asking_the_hub(shell, line):
    assert shell(line).code == 2
    assert shell.hub.calls == []


@pytest.mark.parametrize(
    ("options", "trial"),
    [
        ("", None),
        ("--shadow 100%", Trial()),
        ("--shadow 50", Trial(percent=50.0)),
        ("--split 2.5% --trial-samples 500", Trial(mode=TrialMode.CANARY, percent=2.5, min_samples=500)),
        ("--shadow 100% --trial-for 10s --deadline 1m", Trial(seconds=10.0, longest_seconds=30.0)),
        ("--shadow 100% --trial-for 50s --deadline 1m", Trial(seconds=50.0, longest_seconds=50.0)),
    ],
)
def test_deploy_asks_for_a_trial(shell, options, trial):
    shell.hub.on("POST", "/api/v1/rollouts", rollout(), status=201)
    assert shell(f"{DEPLOY} {options}").code == 0
    assert msgspec.json.decode(shell.hub.calls[0].body, type=RolloutSpec).trial == trial


def test_deploy_dry_run_shows_the_trial(shell):
    shell.hub.on("GET", "/api/v1/models", page(model()))
    shell.hub.on("GET", "/api/v1/fleets/body-shop", FleetView(name="body-shop", selector={"line": "b"}, devices=2))
    shell.hub.on("GET", "/api/v1/devices", page(device()))
    ran = shell(f'{DEPLOY} --split 5% --trial-for 10m --gate "canary_error_rate<=1%" --keep-warm never --dry-run')
    assert ran.code == 0
    assert "  gate canary_error_rate <= 1%" in ran.out
    assert "  trial on each device: the answering of 5% of the requests for 10m and 20 requests, at most 15m" in ran.out
    assert "keep the version before warm: never" in ran.out


def test_deploy_dry_run_checks_and_changes_nothing(shell):
    shell.hub.on("GET", "/api/v1/models", page(model()))
    shell.hub.on("GET", "/api/v1/fleets/body-shop", FleetView(name="body-shop", selector={"line": "b"}, devices=2))
    shell.hub.on("GET", "/api/v1/devices", page(device(), device("x", revoked=True)))
    ran = shell(f"{DEPLOY} --canary 1 --dry-run")
    assert ran.code == 0
    assert "stage 1 canary: 1 device(s)" in ran.out
    assert "1 device(s) match now" in ran.out
    assert {call.method for call in shell.hub.calls} == {"GET"}


def test_deploy_dry_run_finds_that_nobody_would_get_it(shell):
    shell.hub.on("GET", "/api/v1/models", page(model()))
    shell.hub.on("GET", "/api/v1/fleets/body-shop", FleetView(name="body-shop", selector={}, devices=1))
    shell.hub.on("GET", "/api/v1/devices", page(device("x", revoked=True)))
    ran = shell(f"{DEPLOY} --dry-run")
    assert ran.code == 1
    assert "no device matches" in ran.err


def test_deploy_dry_run_finds_a_gate_that_nothing_would_measure(shell):
    shell.hub.on("GET", "/api/v1/models", page(model()))
    ran = shell(f'{DEPLOY} --gate "agreement>=98%" --dry-run')
    assert ran.code == 1
    assert "gate agreement needs a trial by shadow" in ran.err


def test_a_workload_that_is_no_name_is_refused_here(shell):
    ran = shell("deploy weld-defect:1.5.1 --workload ../evil -l line=a")
    assert ran.code == 2
    assert "'../evil' is not a name" in ran.err
    assert shell.hub.calls == []


def test_deploy_dry_run_finds_the_model_missing(shell):
    shell.hub.on("GET", "/api/v1/models", page(model("1.0.0")))
    ran = shell(f"{DEPLOY} --dry-run")
    assert ran.code == 1
    assert "there is no model weld-defect:1.5.1" in ran.err


def test_watch_goes_on_until_done_and_prints_changes_only(shell):
    shell.hub.on("POST", "/api/v1/rollouts", rollout())
    shell.hub.on("GET", ONE, rollout(), rollout(RolloutStatus.RUNNING, stage(committed=1)), done())
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 0
    assert ran.out.splitlines()[-1].endswith("2/2 committed")
    assert len(ran.out.splitlines()) == 5
    assert len(shell.waits) == 3


def test_an_undone_rollout_is_exit_3_with_its_reason(shell):
    undone = rollout(RolloutStatus.UNDONE, stage(status=StageStatus.FAILED, failed=1), reason="latency_p95_ms 14 > 10")
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, undone)
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 3
    assert "SKY-7003" in ran.err
    assert "latency_p95_ms 14 > 10" in ran.err


def test_a_pause_by_a_gate_ends_the_watch_with_3_and_a_pause_by_a_person_does_not(shell):
    by_person = rollout(RolloutStatus.PAUSED, stage(committed=1), reason="paused by anna")
    by_gate = rollout(RolloutStatus.PAUSED, stage(status=StageStatus.FAILED, failed=1), reason="gate")
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, by_person, rollout(), by_gate)
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 3
    assert len(shell.waits) == 3


def test_a_rollout_that_is_done_but_not_everywhere_is_exit_5(shell):
    partly = rollout(RolloutStatus.DONE, stage(status=StageStatus.DONE, committed=1, failed=1))
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, partly)
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 5
    assert "1 of 2" in ran.err


def test_timeout_is_exit_4(shell):
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, rollout())
    ran = shell(f"{DEPLOY} --watch --timeout 5s")
    assert ran.code == 4
    assert sum(shell.waits) == 5


def test_a_hub_that_restarts_does_not_end_the_watch(shell):
    away = errors.HubUnreachable(url="http://hub", problem="refused")
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, away, away, done())
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 0
    assert ran.err.count("asking again") == 1


def test_a_hub_that_stays_away_does(shell):
    away = errors.HubUnreachable(url="http://hub", problem="refused")
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, away)
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 1
    assert "SKY-3001" in ran.err
    assert 100 < sum(shell.waits) < 200


def test_ctrl_c_ends_the_watch_and_says_that_the_rollout_goes_on(shell):
    def interrupt():
        raise KeyboardInterrupt

    shell.on_wait = interrupt
    shell.hub.on("POST", "/api/v1/rollouts", rollout())
    ran = shell(f"{DEPLOY} --watch")
    assert ran.code == 130
    assert "the rollout goes on; skerry rollout status r1 --watch" in ran.err


def test_on_a_terminal_the_watch_is_redrawn_in_place(shell, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, rollout(), done())
    assert shell(f"{DEPLOY} --watch").code == 0
    assert "\x1b[" in terminal.getvalue()
    assert "done: 2/2 committed" in terminal.getvalue()


def test_watch_with_json_prints_only_the_outcome(shell):
    shell.hub.on("POST", "/api/v1/rollouts", rollout()).on("GET", ONE, done())
    assert json.loads(shell(f"{DEPLOY} --watch -o json").out)["status"] == "done"


def test_status_of_the_newest(shell):
    shell.hub.on("GET", "/api/v1/rollouts", page(rollout(), rollout(id="old"))).on("GET", ONE, done())
    ran = shell("rollout status")
    assert ran.code == 0
    assert ran.out.startswith("rollout r1: weld-defect:1.5.1 done: 2/2 committed")


def test_status_without_any_rollout(shell):
    shell.hub.on("GET", "/api/v1/rollouts", page())
    ran = shell("rollout status")
    assert (ran.code, ran.out) == (0, "")
    assert "skerry deploy" in ran.err


@pytest.mark.parametrize("action", ["pause", "resume", "undo"])
def test_steering(shell, action):
    shell.hub.on("POST", f"{ONE}/{action}", rollout()).on("GET", ONE, rollout())
    assert shell(f"rollout {action} rollout/r1 --dry-run").out.startswith(f"would {action}: rollout r1")
    assert shell.hub.sent("POST", f"{ONE}/{action}") == []
    assert shell(f"rollout {action} r1").code == 0
    assert len(shell.hub.sent("POST", f"{ONE}/{action}")) == 1


def test_an_undo_that_was_asked_for_is_a_success(shell):
    undone = rollout(RolloutStatus.UNDONE, stage(status=StageStatus.DONE, committed=2), reason="by anna")
    shell.hub.on("POST", f"{ONE}/undo", rollout(RolloutStatus.UNDOING)).on("GET", ONE, undone)
    assert shell("rollout undo r1 --watch").code == 0
