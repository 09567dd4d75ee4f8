# SPDX-License-Identifier: Apache-2.0
"""The whole agent against a hub over HTTP and a real catalogue; runners are real processes without an engine."""

from __future__ import annotations

import os
import signal
import socket
import threading
from urllib.parse import urlsplit

import pytest

from skerry.agent.supervise.process import Timing
from skerry.trust.chain import Intact, verify_chain
from skerry.wire.v1.report import DeviceReport, WorkloadReport
from support.mini_hub import DEVICE


def last(bench, ref):
    return [body for body in bench.hub.bodies(WorkloadReport) if body.digest == ref.digest][-1]


def running(bench, ref, **labels: str):
    """A device on `ref`."""
    bench.join()
    bench.hub.assign(bench.spec(ref))
    bench.start()
    bench.committed(ref)


def test_installs_serves_and_proves_it(bench):
    v1 = bench.owner.release("1.0.0", 1, labels={"results": "3"})
    running(bench, v1)
    assert bench.ask() == "digits:1.0.0"
    assert bench.hub.states(v1) == ["fetching", "self-testing", "switching", "soaking", "committed"]
    assert last(bench, v1).variant == "int8"
    bench.until("results", lambda: len(bench.hub.results()) >= 6)
    bench.stop()
    intact = verify_chain(bench.hub.history(), device_id=DEVICE, public_key=bench.hub.public_key)
    assert isinstance(intact, Intact)
    kinds = [entry.kind for entry in bench.hub.history()]
    assert kinds == ["agent-started", "assignment-accepted", "update-began", "committed"]
    assert bench.hub.bodies(DeviceReport)[0].capabilities.runtimes


def test_an_assignment_that_asks_for_nothing_new_is_still_reported_as_in_force(bench):
    """What a device tells the hub that was offline while a first install was assigned and taken back."""
    bench.join()
    bench.hub.assign()
    bench.start()
    bench.until("first", lambda: 1 in [body.sequence for body in bench.hub.bodies(DeviceReport)])
    bench.hub.assign()
    bench.until("second", lambda: 2 in [body.sequence for body in bench.hub.bodies(DeviceReport)])


def test_an_assignment_is_not_in_force_while_an_attempt_of_the_one_before_is_under_way(bench):
    v1 = bench.owner.release("1.0.0", 1)
    bench.join()
    bench.hub.assign(bench.spec(v1, soak=60))
    bench.start()
    bench.until("soak", lambda: "soaking" in bench.hub.states(v1))
    bench.hub.assign()
    bench.until("undone", lambda: 2 in [body.sequence for body in bench.hub.bodies(DeviceReport)])
    said = [body for body in bench.hub.bodies(object) if isinstance(body, DeviceReport | WorkloadReport)]
    in_force = next(n for n, body in enumerate(said) if isinstance(body, DeviceReport) and body.sequence == 2)
    undone = next(n for n, body in enumerate(said) if getattr(body, "state", "") == "undone")
    assert undone < in_force


def test_a_hub_whose_assignment_is_refused_learns_which_one_is_in_force(bench):
    """It was put back from a backup, say: only from this can it know that it has to number higher."""
    bench.join()
    bench.hub.sequence = 40
    bench.hub.assign()
    bench.start()
    bench.until("41", lambda: 41 in [body.sequence for body in bench.hub.bodies(DeviceReport)])
    bench.hub.sequence = 7
    bench.hub.assign()
    bench.until("refusal", lambda: bench.hub.bodies(DeviceReport)[-1].issues == ("assignment-refused: replayed",))
    assert bench.hub.bodies(DeviceReport)[-1].sequence == 41
    bench.hub.sequence = 41
    bench.hub.assign()
    bench.until("42", lambda: bench.hub.bodies(DeviceReport)[-1].sequence == 42)
    bench.until("no issue", lambda: bench.hub.bodies(DeviceReport)[-1].issues == ())


def test_only_the_chosen_variant_travels(bench):
    v1 = bench.owner.release("1.0.0", 1)
    running(bench, v1)
    names = {path.name for path in (bench.state / "bundles" / v1.digest.removeprefix("sha256:")).rglob("*")}
    assert {"skerry.json", "int8.onnx", "self-test.npz"} <= names
    assert "fp32.onnx" not in names


def test_failed_self_test_leaves_the_old_version_and_is_remembered_for_good(bench):
    v1 = bench.owner.release("1.0.0", 1)
    bad = bench.owner.release("2.0.0", 2, labels={"self-test": "fail"})
    running(bench, v1)
    bench.hub.assign(bench.spec(bad))
    bench.until("undo", lambda: "undone" in bench.hub.states(bad))
    assert last(bench, bad).reason == "self-test-failed"
    assert last(bench, bad).running == v1.digest
    assert bench.ask() == "digits:1.0.0"
    bench.stop()
    bench.start()
    bench.hub.assign(bench.spec(bad, soak=0.5))
    bench.until("refusal", lambda: bench.hub.states(bad)[-1] == "refused")
    assert last(bench, bad).reason == "failed-before"
    assert bench.ask() == "digits:1.0.0"


@pytest.mark.parametrize("phase", ["fetch", "self-test", "soak"])
def test_stop_in_the_middle_of_an_update_speaks_not_against_the_bundle(bench, phase):
    v1 = bench.owner.release("1.0.0", 1)
    v2 = bench.owner.release("2.0.0", 2, labels={"slow-load": "1"})
    running(bench, v1)
    if phase == "fetch":
        bench.hub.cut_blobs_after = 150
    bench.hub.assign(bench.spec(v2, soak=2.0))
    bench.until(phase, lambda: bench.workload().attempt == f"{v2.name} {phase}")
    if phase == "self-test":
        bench.until("a runner that loads", lambda: bench.agent._supervisor._slot("eye").staged is not None)
    bench.stop()
    bench.hub.cut_blobs_after = None
    assert "undone" not in bench.hub.states(v2)
    bench.start()
    bench.committed(v2)
    assert bench.ask() == v2.name
    assert "undone" not in bench.hub.states(v2)


def test_model_that_does_not_load_is_undone(bench):
    bad = bench.owner.release("1.0.0", 1, labels={"load": "fail"})
    bench.join()
    bench.hub.assign(bench.spec(bad))
    bench.start()
    bench.until("undo", lambda: "undone" in bench.hub.states(bad))
    assert last(bench, bad).reason == "runner-failed"
    assert "SKY-1002" in last(bench, bad).detail
    assert not (bench.state / "bundles" / f"{bad.digest.removeprefix('sha256:')}.json").exists()


def test_soak_takes_back_what_answers_wrongly_slowly_or_crashes(bench):
    v1 = bench.owner.release("1.0.0", 1)
    wrong = bench.owner.release("2.0.0", 2, labels={"errors": "0.5"})
    slow = bench.owner.release("3.0.0", 3, labels={"p95": "80"})
    crashing = bench.owner.release("4.0.0", 4, labels={"crash": "0.2"})
    running(bench, v1)
    for bad, reason in ((wrong, "error-rate"), (slow, "latency"), (crashing, "crashed-in-soak")):
        bench.hub.assign(bench.spec(bad, soak=1.0, max_latency_p95_ms=20.0))
        bench.until(f"undo of {bad.name}", lambda bad=bad: "undone" in bench.hub.states(bad))
        assert last(bench, bad).reason == reason
        bench.until("answers again", lambda: bool(bench.workload().url))
        assert bench.ask() == "digits:1.0.0"


def test_committed_version_in_a_crash_loop_falls_back(bench):
    v1 = bench.owner.release("1.0.0", 1)
    late = bench.owner.release("2.0.0", 2, labels={"crash": "0.6"})
    running(bench, v1)
    bench.hub.assign(bench.spec(late, soak=0.1))
    bench.committed(late)
    bench.until("fall-back", lambda: bench.hub.states(late)[-1] == "fell-back")
    assert last(bench, late).reason == "crash-loop"
    bench.until("v1 serves", lambda: bool(bench.workload().url))
    assert bench.ask() == "digits:1.0.0"
    assert [entry.kind for entry in bench.hub.history()][-1] == "fell-back"


def test_serves_and_queues_without_a_hub_across_restarts(bench):
    v1 = bench.owner.release("1.0.0", 1, labels={"results": "2"})
    running(bench, v1)
    port = bench.workload().url
    bench.hub.stop()
    bench.stop()
    bench.start()
    bench.until("serving again", lambda: bench.workload() is not None and bool(bench.workload().url))
    assert bench.workload().url == port
    assert bench.ask() == "digits:1.0.0"
    bench.until("queue", lambda: len(bench.agent._outbox) > 12)
    bench.hub.start()
    bench.until("drained", lambda: len(bench.agent._outbox) < 4)
    bench.stop()
    seen = [result.event_id for result in bench.hub.results()]
    assert len(seen) == len(set(seen))
    sequences = sorted(bench.hub.reports)
    assert sequences == list(range(1, len(sequences) + 1))


def test_switches_and_goes_back_without_dropping_a_request(bench):
    v1 = bench.owner.release("1.0.0", 1)
    v2 = bench.owner.release("2.0.0", 2)
    running(bench, v1)
    answers: list[str] = []
    problems: list[Exception] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                answers.append(bench.ask())
            except OSError as error:
                problems.append(error)

    client = threading.Thread(target=load)
    client.start()
    bench.hub.assign(bench.spec(v2))
    bench.committed(v2)
    bench.hub.assign(bench.spec(v1))
    bench.until("back on v1", lambda: bench.hub.states(v1).count("committed") == 2)
    done.set()
    client.join()
    assert not problems
    assert set(answers) == {"digits:1.0.0", "digits:2.0.0"}


def test_confirms_a_new_assignment_of_what_runs(bench):
    v1 = bench.owner.release("1.0.0", 1)
    running(bench, v1)
    bench.hub.assign(bench.spec(v1, rollout="r-2"))
    bench.until("confirmation", lambda: last(bench, v1).rollout == "r-2")
    assert last(bench, v1).state == "committed"
    assert last(bench, v1).sequence == 2


def test_refuses_what_no_release_key_signed_and_fetches_nothing_of_it(bench):
    v1 = bench.owner.release("1.0.0", 1)
    from support import bundles

    stray = bench.owner.upload(bundles.bundle(version="9.9.9", release_seq=9))
    running(bench, v1)
    bench.hub.assign(bench.spec(stray))
    bench.until("refusal", lambda: bench.hub.states(stray)[-1:] == ["refused"])
    assert last(bench, stray).reason == "not-in-catalogue"
    assert bench.ask() == "digits:1.0.0"
    assert not (bench.state / "blobs/sha256" / stray.digest.removeprefix("sha256:")).exists()


def test_refuses_a_tampered_blob_and_keeps_nothing_of_it(bench):
    v1 = bench.owner.release("1.0.0", 1)
    victim = next(path for path, data in bench.owner.repository.files.items() if data.startswith(b"int8 weights"))
    bench.owner.repository.files[victim] = bench.owner.repository.files[victim].replace(b"int8", b"evil")
    bench.join()
    bench.hub.assign(bench.spec(v1))
    bench.start()
    bench.until("refusal", lambda: bench.hub.states(v1)[-1:] == ["refused"])
    assert last(bench, v1).reason == "digest-mismatch"
    assert b"evil" not in b"".join(path.read_bytes() for path in bench.state.rglob("*") if path.is_file())


def test_continues_a_broken_download(bench):
    v1 = bench.owner.release("1.0.0", 1)
    bench.hub.cut_blobs_after = 150
    bench.join()
    bench.hub.assign(bench.spec(v1))
    bench.start()
    bench.until("a second range", lambda: len(bench.hub.ranges) >= 2)
    bench.hub.cut_blobs_after = None
    bench.committed(v1)
    assert bench.hub.ranges[0] == "bytes=150-"


def test_refuses_another_devices_assignment_and_an_expired_one(bench):
    v1 = bench.owner.release("1.0.0", 1)
    bench.join()
    bench.hub.assign(bench.spec(v1), device="device-2")
    bench.start()

    def refusals() -> list[object]:
        return [entry.fields["reason"] for entry in bench.hub.history() if entry.kind == "assignment-refused"]

    bench.until("refusal", lambda: refusals() == ["other-device"])
    bench.hub.assign(bench.spec(v1), lifetime=0.0)
    bench.until("refusal", lambda: refusals() == ["other-device", "expired"])
    assert bench.hub.states(v1) == []
    bench.hub.assign(bench.spec(v1))
    bench.committed(v1)


def test_removes_what_is_no_longer_assigned_but_not_what_failed(bench):
    v1 = bench.owner.release("1.0.0", 1)
    running(bench, v1)
    bench.hub.assign()
    bench.until("removal", lambda: bench.hub.states(v1)[-1] == "removed")
    assert bench.workload().url == ""
    assert not (bench.state / "bundles" / f"{v1.digest.removeprefix('sha256:')}.json").exists()


def test_damaged_bundle_is_fetched_again_on_start(bench):
    v1 = bench.owner.release("1.0.0", 1)
    running(bench, v1)
    bench.stop()
    model = bench.state / "bundles" / v1.digest.removeprefix("sha256:") / "models/int8.onnx"
    model.write_bytes(b"rotten " + model.read_bytes()[7:])
    bench.start()
    bench.until("serving again", lambda: bench.workload() is not None and bool(bench.workload().url))
    assert model.read_bytes().startswith(b"int8 weights")


def test_lost_floors_stop_updates_and_nothing_else(bench):
    v1, v2 = bench.owner.release("1.0.0", 1), bench.owner.release("2.0.0", 2)
    running(bench, v1)
    bench.stop()
    (bench.state / "floors.json").unlink()
    bench.hub.assign(bench.spec(v2))
    bench.start()
    bench.until("serving again", lambda: bench.workload() is not None and bool(bench.workload().url))
    assert bench.ask() == "digits:1.0.0"

    def issues() -> list[str]:
        return [issue for body in bench.hub.bodies(DeviceReport) for issue in body.issues]

    bench.until("the issue at the hub", lambda: any(issue.startswith("floors-damaged") for issue in issues()))
    assert bench.hub.states(v2) == []
    assert not (bench.state / "floors.json").exists()


def test_refused_catalogue_holds_an_update_up_and_does_not_end_it(bench):
    """A cache that serves yesterday's timestamp for a minute must not cost a device its rollout."""
    v1, v2 = bench.owner.release("1.0.0", 1), bench.owner.release("2.0.0", 2)
    running(bench, v1)
    files = bench.owner.repository.files
    good, files["timestamp.json"] = files["timestamp.json"], b"{}"
    bench.hub.assign(bench.spec(v2))
    bench.until("an attempt that waits", lambda: "malformed" in (bench.workload().problem or ""))
    assert bench.ask() == "digits:1.0.0"
    assert "refused" not in bench.hub.states(v2)
    files["timestamp.json"] = good
    bench.committed(v2)


def test_crashed_runner_is_started_again_on_the_same_port(bench):
    v1 = bench.owner.release("1.0.0", 1)
    running(bench, v1)
    url = bench.workload().url
    process = bench.agent._supervisor._slot("eye").serving
    os.kill(process.pid, signal.SIGKILL)
    bench.until("a new runner", lambda: (bench.agent._supervisor._slot("eye").serving or process) is not process)
    assert bench.workload().url == url
    assert bench.ask() == "digits:1.0.0"


def test_two_workloads_on_one_device(bench):
    v1 = bench.owner.release("1.0.0", 1)
    other = bench.owner.release("1.0.0", 1, line="audio", name="words")
    bench.join()
    bench.hub.assign(bench.spec(v1), bench.spec(other, name="ear"))
    bench.start()
    bench.committed(v1)
    bench.committed(other)
    assert bench.ask("eye") == "digits:1.0.0"
    assert bench.ask("ear") == "words:1.0.0"


def test_once_ends_by_itself_when_all_is_done(bench):
    v1 = bench.owner.release("1.0.0", 1)
    bench.join()
    bench.hub.assign(bench.spec(v1))
    bench.start(once=True)
    bench.committed(v1)
    bench._thread.join(20)
    assert not bench._thread.is_alive()


def three(bench, **labels: str):
    """Three workloads, the first of them with labels."""
    refs = {
        name: bench.owner.release("1.0.0", 1, line=line, name=name, labels=labels if name == "a" else {})
        for name, line in (("a", "vision"), ("b", "audio"), ("c", "audio"))
    }
    bench.join()
    bench.hub.assign(*(bench.spec(ref, name=name, soak=0.1) for name, ref in refs.items()))
    bench.start()
    for ref in refs.values():
        bench.committed(ref)
    return refs


def test_a_committed_version_that_hangs_while_it_loads_keeps_no_other_waiting(bench, tmp_path):
    three(bench, **{"hang-if": str(tmp_path / "hang")})
    bench.stop()
    (tmp_path / "hang").touch()
    bench.start(timing=Timing(start=60, serve=10, linger=0.5, end=5, figures=0.1, probe=0.1))
    bench.until("the others", lambda: all(bench.workload(name) and bench.workload(name).url for name in "bc"), 15)
    assert (bench.ask("b"), bench.ask("c")) == ("b:1.0.0", "c:1.0.0")
    assert bench.workload("a").url == ""


def test_a_committed_version_that_never_comes_to_serve_falls_back_however_slowly_it_fails(bench, tmp_path):
    v1 = bench.owner.release("1.0.0", 1)
    v2 = bench.owner.release("2.0.0", 2, labels={"hang-if": str(tmp_path / "hang")})
    running(bench, v1)
    bench.hub.assign(bench.spec(v2))
    bench.committed(v2)
    bench.stop()
    (tmp_path / "hang").touch()
    bench.start(timing=Timing(start=1.5, serve=10, linger=0.5, end=5, figures=0.1, probe=0.1))
    bench.until("a problem", lambda: "not loaded within" in bench.workload().problem)
    bench.until("fall-back", lambda: bench.hub.states(v2)[-1] == "fell-back")
    bench.until("v1 serves", lambda: bool(bench.workload().url))
    assert bench.ask() == v1.name


def test_nothing_to_fall_back_to_is_tried_again_until_it_starts(bench, tmp_path):
    v1 = bench.owner.release("1.0.0", 1, labels={"fail-if": str(tmp_path / "fail")})
    running(bench, v1)
    bench.stop()
    (tmp_path / "fail").touch()
    bench.start()
    bench.until("a problem", lambda: "SKY-1002" in bench.workload().problem)
    (tmp_path / "fail").unlink()
    bench.until("serving", lambda: bool(bench.workload().url), 45)
    assert bench.workload().problem == ""


def test_a_port_taken_by_another_program_is_said_and_waited_for(bench):
    v1 = bench.owner.release("1.0.0", 1)
    running(bench, v1)
    url = bench.workload().url
    bench.stop()
    with socket.create_server(("127.0.0.1", urlsplit(url).port)):
        bench.start()
        bench.until("a problem", lambda: "cannot listen on 127.0.0.1:" in bench.workload().problem)
        assert bench.workload().url == ""
    bench.until("serving", lambda: bool(bench.workload().url))
    assert bench.workload().url == url
    assert bench.ask() == v1.name


def test_removing_one_workload_of_three_touches_no_other(bench):
    refs = three(bench)
    pids = {name: bench.agent._supervisor._slot(name).serving.pid for name in "ac"}
    bench.hub.assign(*(bench.spec(refs[name], name=name) for name in "ac"))
    bench.until("removal", lambda: bench.hub.states(refs["b"])[-1] == "removed")
    assert {name: bench.agent._supervisor._slot(name).serving.pid for name in "ac"} == pids
    assert bench.workload("b").url == ""


def test_another_bundle_asked_for_in_the_middle_of_a_fetch(bench):
    v1, v2, v3 = (bench.owner.release(f"{number}.0.0", number) for number in (1, 2, 3))
    running(bench, v1)
    bench.hub.cut_blobs_after = 150
    bench.hub.assign(bench.spec(v2))
    bench.until("a fetch", lambda: len(bench.hub.ranges) >= 1)
    bench.hub.assign(bench.spec(v3))
    bench.until("undo", lambda: bench.hub.states(v2)[-1:] == ["undone"])
    bench.hub.cut_blobs_after = None
    bench.committed(v3)
    assert last(bench, v2).reason == "superseded"
    assert not list((bench.state / "partial").iterdir())
