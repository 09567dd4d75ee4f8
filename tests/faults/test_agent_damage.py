# SPDX-License-Identifier: Apache-2.0
"""Files of a state folder, damaged one at a time while nothing runs and no hub is there: what was committed serves again,
under the same address, and what failed stays refused; or the agent says which file is damaged.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry.errors import NotEnrolled, StateDamaged
from support.agent_bench import Bench

DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "garbage": lambda data: random.Random(7).randbytes(len(data)),
    "no-text": lambda data: b'{"name":"\xff","workload":"\xff"}',
    "too-deep": lambda data: b"[" * 100_000,
    "empty": lambda data: b"",
    "gone": lambda data: None,
}
HEALS = (
    "assignment.dsse",
    "ballast",
    "catalogue/metadata/root.json",
    "catalogue/metadata/timestamp.json",
    "factory-root.json",
    "floors.json",
    "lock",
    "outbox.db",
    "status.json",
    "workloads/eye.json",
    "bundles/*.json",
)
HOPELESS = ("device.json", "identity/key.pem")


def damage(bench: Bench, pattern: str, how: str) -> None:
    found = sorted(bench.state.glob(pattern))
    assert found
    for path in found:
        data = DAMAGE[how](path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)


@pytest.fixture
def stopped(bench):
    """Version 2 failed here, version 1 is committed, the hub is gone."""
    v1 = bench.owner.release("1.0.0", 1)
    bad = bench.owner.release("2.0.0", 2, labels={"self-test": "fail"})
    bench.join()
    bench.hub.assign(bench.spec(v1))
    bench.start()
    bench.committed(v1)
    bench.hub.assign(bench.spec(bad))
    bench.until("undo", lambda: "undone" in bench.hub.states(bad))
    bench.until("v1 serves", lambda: bool(bench.workload().url))
    bench.url, bench.bad, bench.good = bench.workload().url, bad, v1
    bench.stop()
    bench.hub.stop()
    return bench


def each(bench: Bench, pattern: str) -> Iterator[str]:
    """Every kind of damage to a fresh copy of the state folder."""
    whole = bench.state.with_name("whole")
    shutil.copytree(bench.state, whole, ignore=shutil.ignore_patterns("*.sock"))  # of the run that is over
    for how in DAMAGE:
        shutil.rmtree(bench.state)
        shutil.copytree(whole, bench.state)
        damage(bench, pattern, how)
        yield how


@pytest.mark.slow
@pytest.mark.parametrize("pattern", HEALS)
def test_damage_that_takes_nothing_out_of_service(stopped, pattern):
    for how in each(stopped, pattern):
        if (pattern, how) == ("factory-root.json", "gone"):
            continue  # without any root there is nobody to trust: see below
        stopped.start()
        stopped.until(f"serving, {how}", lambda: stopped.workload() is not None and bool(stopped.workload().url))
        assert stopped.ask() == "digits:1.0.0", how
        assert stopped.workload().url == stopped.url, how
        assert stopped.agent._records.get("eye").failure(stopped.bad.digest) is not None, how
        stopped.stop()


@pytest.mark.parametrize("pattern", HOPELESS)
def test_damage_that_is_said(stopped, pattern):
    for how in each(stopped, pattern):
        expected = NotEnrolled if (pattern, how) == ("device.json", "gone") else StateDamaged
        with pytest.raises(expected) as said:
            stopped.start()
        assert Path(pattern).name in str(said.value) or expected is NotEnrolled


def test_a_lost_factory_root_is_said(stopped):
    damage(stopped, "factory-root.json", "gone")
    with pytest.raises(StateDamaged, match=r"factory-root\.json"):
        stopped.start()


def kinds(bench: Bench) -> list[str]:
    assert bench.agent is not None
    return [entry.kind for entry in bench.agent._history.entries()]


def test_a_recovered_record_goes_on_and_tells_the_hub(stopped):
    damage(stopped, "workloads/eye.json", "garbage")
    stopped.start()
    stopped.until("recovery", lambda: "record-recovered" in kinds(stopped))
    assert (stopped.state / "workloads" / "eye.json.damaged").exists()
    v3 = stopped.owner.release("3.0.0", 3)
    stopped.hub.start()
    stopped.hub.assign(stopped.spec(v3))
    stopped.committed(v3)
    assert stopped.hub.states(v3) == ["fetching", "self-testing", "switching", "soaking", "committed"]
    assert stopped.ask() == "digits:3.0.0"


def test_a_history_that_cannot_be_read_is_begun_anew_and_kept(stopped):
    damage(stopped, "outbox.db", "garbage")
    stopped.start()
    stopped.until("serving", lambda: stopped.workload() is not None and bool(stopped.workload().url))
    assert kinds(stopped)[0] == "history-begun-anew"
    assert (stopped.state / "outbox.db.damaged").exists()
    assert any(issue.name == "history-broken" for issue in stopped.agent._teller._issues())


def test_one_damaged_record_keeps_no_other_workload_down(bench):
    v1 = bench.owner.release("1.0.0", 1)
    other = bench.owner.release("1.0.0", 1, line="audio", name="words")
    bench.join()
    bench.hub.assign(bench.spec(v1), bench.spec(other, name="ear"))
    bench.start()
    bench.committed(v1)
    bench.committed(other)
    bench.stop()
    bench.hub.stop()
    damage(bench, "workloads/ear.json", "garbage")
    damage(bench, "outbox.db", "garbage")  # nothing to recover it from either
    bench.start()
    bench.until("serving", lambda: bench.workload() is not None and bool(bench.workload().url))
    assert bench.ask() == "digits:1.0.0"
    bench.hub.start()
    bench.until("the other one again", lambda: bench.workload("ear") is not None and bool(bench.workload("ear").url))
    assert bench.ask("ear") == "words:1.0.0"


def test_writes_a_crash_cut_short_are_swept_up(stopped):
    for name in (".status.json.12ab34cd.new", "workloads/.eye.json.12ab34cd.new", "identity/.key.pem.00000000.new"):
        (stopped.state / name).write_bytes(b"half")
    stopped.start()
    stopped.until("serving", lambda: stopped.workload() is not None and bool(stopped.workload().url))
    assert [path for path in stopped.state.rglob(".*.new") if "12ab34cd" in path.name or "00000000" in path.name] == []
