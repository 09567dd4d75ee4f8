# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from skerry.agent.store import Store
from skerry.bundle import oci
from skerry.errors import ExecutableFormat, StorageError
from skerry.wire.v1.device import WorkloadSpec
from support import bundles
from support.agent_world import LAYOUT, World


def reports(world):
    return [(str(made.pending[0].report.state), made.pending[0].report.reason) for _, made in world.ledger.said]


def test_history_that_cannot_be_written_holds_everything_up_and_loses_nothing():
    world = World()
    world.assign(world.publisher.refs[0])
    real, failures = world.ledger.emit, iter([True, False, True, True, False, True] + [False] * 100)

    def emit(record):
        if record.pending and next(failures):
            raise StorageError(path="outbox.db", problem="database or disk is full")
        return real(record)

    world.ledger.emit = emit  # type: ignore[method-assign]  # a full disk
    world.rounds(200)
    states = [state for state, _ in reports(world)]
    assert list(dict.fromkeys(states)) == ["fetching", "self-testing", "switching", "soaking", "committed"]
    assert (states.count("fetching"), states.count("committed")) == (1, 1)


@pytest.mark.parametrize("readdressed", [False, True])
def test_history_that_fails_at_any_single_moment_loses_and_repeats_nothing(readdressed):
    """An activation may begin again; its beginning and its end are told once. So it is when the hub asks anew meanwhile."""
    expected = ["fetching", "self-testing", "switching", "soaking", "committed"]
    for failing in range(len(expected) * 2):
        world = World()
        world.assign(world.publisher.refs[0])
        asked = iter(range(1000))
        real = world.ledger.emit

        def emit(record, world=world, real=real, asked=asked, failing=failing):
            if record.pending and next(asked) == failing:
                if readdressed:
                    world.assign(world.publisher.refs[0])
                raise StorageError(path="outbox.db", problem="database or disk is full")
            return real(record)

        world.ledger.emit = emit  # type: ignore[method-assign]  # a disk that is full for a moment
        world.rounds(100)
        states = [state for state, _ in reports(world)]
        assert list(dict.fromkeys(states)) == expected, failing
        assert states.count("fetching") == 1, failing
        assert 1 <= states.count("committed") <= 1 + readdressed, (
            failing
        )  # a commit is confirmed under a new assignment


def test_what_is_told_of_what_runs_is_true_when_it_is_told():
    world = World()
    first, second, third = world.publisher.refs[:3]
    told: list[tuple[str, str, str]] = []
    real = world.ledger.emit

    def emit(record):
        reports = [pending.report for pending in record.pending]
        told.extend((str(report.state), report.running, world.serving()) for report in reports)
        return real(record)

    world.ledger.emit = emit  # type: ignore[method-assign]  # looks while it is told
    world.assign(first)
    world.rounds()
    world.runners.bad = {second.digest}
    for ref in (second, third):
        world.assign(ref)
        world.rounds()
    world.runners.crash("w0")
    world.runners.looping = {"w0"}
    world.rounds()
    world.assign()
    world.rounds()
    ends = [each for each in told if each[0] in {"committed", "undone", "fell-back", "removed"}]
    assert [state for state, _, _ in ends] == ["committed", "undone", "committed", "fell-back", "removed"]
    assert [running for _, running, _ in ends] == [serving for _, _, serving in ends]


def test_what_is_here_does_not_travel_again():
    world = World()
    world.road.breaks_after = 100
    world.assign(world.publisher.refs[0])
    world.rounds(3)
    world.road.breaks_after = None
    world.rounds()
    assert world.serving() == world.publisher.refs[0].digest
    asked = [digest for digest, offset in world.road.asked if offset == 0]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(("mib", "kept"), [(100.0, True), (900.0, False)])
def test_what_is_only_kept_warm_is_no_reason_to_refuse_another_workload(mib, kept):
    world = World(versions=3)
    first, second, other = world.publisher.refs[:3]
    world.assign(first)
    world.rounds()
    world.runners.warm_mib = mib
    world.assign(second, soak=1000.0)
    for _ in range(10):
        world.turn()
    assert world.runners.warm() == {"w0": mib}
    world.assign(second, other, soak=1000.0)
    for _ in range(10):
        world.turn()
    assert world.serving("w1") == other.digest
    assert ("w0" in world.runners.warm()) is kept
    if not kept:
        assert world.runners.let_go_for == ["the version before is no longer kept warm: w1 needs its memory"]


def test_refusal_when_the_others_leave_no_room_says_who_would_have_to_go():
    world = World()
    world.updater.actor._means.taken = lambda: {"ear": 930.0}
    world.assign(world.publisher.refs[0])
    world.rounds()
    assert reports(world)[-1] == ("refused", "does-not-fit")
    refusal = world.records.get("w0").refusal
    assert refusal is not None
    assert "without ear (930 MiB) it would fit" in refusal.detail
    assert world.road.asked == [] or len({digest for digest, _ in world.road.asked}) == 1  # skerry.json alone


def test_refusal_when_no_variant_fits_names_what_is_missing():
    world = World()
    world.updater.actor._means = replaced(world.updater.actor._means, runtimes={})
    world.assign(world.publisher.refs[0])
    world.rounds()
    assert reports(world)[-1] == ("refused", "no-variant-fits")
    refusal = world.records.get("w0").refusal
    assert refusal is not None
    assert "no onnxruntime engine" in refusal.detail


def replaced(means, **capabilities):
    means.capabilities = replace(means.capabilities, **capabilities)
    return means


def test_rollback_below_the_floor_is_refused_with_its_name():
    world = World()
    for ref in world.publisher.refs[:3]:
        world.assign(ref)
        world.rounds()
    world.assign(world.publisher.refs[0])
    world.rounds()
    assert reports(world)[-1] == ("refused", "rollback")
    assert world.serving() == world.publisher.refs[2].digest


def test_one_step_back_stays_possible():
    world = World()
    for ref in (*world.publisher.refs[:2], world.publisher.refs[0]):
        world.assign(ref)
        world.rounds()
    assert world.serving() == world.publisher.refs[0].digest


def test_newer_assignment_of_the_same_bundle_takes_the_attempt_over():
    world = World()
    first = world.publisher.refs[0]
    world.assign(first, soak=1e9)
    world.rounds(5)
    assert world.assignment is not None
    spec = WorkloadSpec(name="w0", bundle=first, soak_seconds=0.0, rollout="r-9")
    world.assignment = replace(world.assignment, sequence=7, workloads=(spec,))
    world.rounds()
    report = world.ledger.said[-1][1].pending[0].report
    assert (report.state, report.rollout, report.sequence) == ("committed", "r-9", 7)
    assert world.states(first).count("fetching") == 1


def test_assignment_that_changes_in_the_middle_of_a_download_stops_it():
    world = World()
    first, second = world.publisher.refs[:2]
    world.assign(first)
    real = world.road.blob

    def blob(digest, *, offset=0, etag=""):
        if len(world.road.asked) == 1:
            world.assign(second)
        return real(digest, offset=offset, etag=etag)

    world.road.blob = blob  # type: ignore[method-assign]  # the hub changes its mind
    world.rounds()
    assert world.states(first) == ["fetching", "undone"]
    assert reports(world)[1] == ("undone", "superseded")
    assert world.records.get("w0").failed == ()
    assert world.serving() == second.digest


def test_assignment_that_changes_during_the_self_test_is_not_switched_to():
    """What the hub no longer wants is not activated because it happened to be ready."""
    world = World()
    first, second = world.publisher.refs[:2]
    world.assign(first)
    real = world.runners.stage

    def stage(launch):
        real(launch)
        if launch.digest == first.digest:
            world.assign(second)

    world.runners.stage = stage  # type: ignore[method-assign]  # the hub changes its mind
    world.rounds()
    assert world.runners.served == [second.digest]


def test_nothing_is_fetched_of_what_trust_refuses():
    world = World()
    old, newer, newest = world.publisher.refs[:3]
    for ref in (newer, newest):
        world.assign(ref)
        world.rounds()
    asked = len(world.road.asked)
    world.assign(old)
    world.rounds()
    assert reports(world)[-1] == ("refused", "rollback")
    assert len(world.road.asked) == asked
    assert not Store(world.files, LAYOUT).has(old.digest)


def test_bundle_that_says_something_else_of_itself_never_runs():
    """Catalogue and assignment agree on release 9; the bytes say 1. Of it only manifest and config are ever fetched."""
    world = World()
    ref = replace(world.publisher.refs[0], release_seq=9)
    world.publisher.entries[ref.target] = replace(world.publisher.entries[ref.target], release_seq=9)
    world.assign(ref)
    world.rounds()
    assert reports(world)[-1] == ("refused", "release-seq-mismatch")
    assert world.runners.served == []
    assert len(world.road.asked) == 1
    assert ref.digest not in world.gate.allowed


def test_trust_is_asked_once_more_at_the_switch():
    """Tested and ready, and meanwhile another workload's commit raised the floor above it."""
    world = World()
    ref = world.publisher.refs[0]
    real = world.runners.stage

    def stage(launch):
        real(launch)
        world.gate.committed(line=ref.line, model=ref.model, release_seq=4, replaced=3, floor_seq=0)

    world.runners.stage = stage  # type: ignore[method-assign]  # that moment
    world.assign(ref)
    world.rounds()
    assert reports(world)[-1] == ("refused", "rollback")
    assert world.runners.served == []


class TwoFaced:
    """Innocent when it is looked at for packing, code ever after: what a packer makes that does not look."""

    def __init__(self) -> None:
        self.faces = iter([b"weights".ljust(400)])
        self.size = 400

    def chunks(self) -> Iterator[bytes]:
        yield next(self.faces, b"\x80\x04\x95K\x00" + b"pickled".ljust(395))


def test_model_that_is_code_is_not_unpacked_whoever_signed_it():
    """Released and assigned, named .onnx, and a pickle by its content."""
    world = World()
    files = {**bundles.files(), bundles.FP32: TwoFaced(), bundles.INT8: TwoFaced()}
    ref = world.publisher.publish(oci.build(bundles.config(version="9.0.0", release_seq=9), files))
    world.assign(ref)
    world.rounds()
    assert reports(world)[-1] == ("refused", ExecutableFormat.code)
    assert world.runners.served == []
    assert Store(world.files, LAYOUT).marker(ref.digest) is None


def test_file_that_does_not_arrive_whole_in_its_folder_is_not_started():
    """A disk that loses bytes on the way from blob to bundle."""
    world = World()
    ref = world.publisher.refs[0]
    real = world.files.clone

    def clone(source, target):
        real(source, target)
        if target.suffix == ".onnx":
            world.files.write(target, b"x" * (world.files.size(target) or 0))

    world.files.clone = clone  # type: ignore[method-assign]  # that disk
    world.assign(ref)
    world.rounds()
    assert "was altered" in world.updater.problems["w0"]
    assert (world.runners.served, world.runners.not_whole) == ([], [])
    world.files.clone = real  # type: ignore[method-assign]  # the disk is well again
    world.rounds(100)
    assert world.serving() == ref.digest


def test_same_bundle_under_two_names_is_kept_until_both_let_go():
    world = World()
    first, second = world.publisher.refs[:2]
    world.assign(first, first)
    world.rounds()
    assert (world.serving("w0"), world.serving("w1")) == (first.digest, first.digest)
    world.assign(second, first)
    world.rounds()
    world.runners.power_off()
    world.boot()
    world.rounds()
    assert (world.serving("w0"), world.serving("w1")) == (second.digest, first.digest)
    assert world.runners.not_whole == []


def test_ports_are_kept_for_good():
    world = World()
    world.assign(world.publisher.refs[0])
    world.rounds()
    port = world.records.get("w0").port
    assert port
    world.boot()
    world.assign(world.publisher.refs[1])
    world.rounds()
    assert world.records.get("w0").port == port


def test_machine_that_goes_down_with_every_activation_gives_up_on_the_bundle():
    world = World()
    first, second = world.publisher.refs[:2]
    world.assign(first)
    world.rounds()
    world.assign(second, soak=1e9)
    for _ in range(4):
        world.rounds(4)
        world.boot()
    world.rounds()
    assert world.states(second)[-1] == "undone"
    assert reports(world)[-1][1] == "reboot-loop"
    assert world.serving() == first.digest
