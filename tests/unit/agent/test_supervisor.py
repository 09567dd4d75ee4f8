# SPDX-License-Identifier: Apache-2.0
"""Real processes without an engine under a real supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from skerry.agent.supervise import sockets
from skerry.agent.supervise.doors import Ports
from skerry.agent.supervise.orphans import find_orphans
from skerry.agent.supervise.process import RunnerProcess, Surroundings, Timing
from skerry.agent.supervise.slot import Outlets
from skerry.agent.supervise.supervisor import Supervisor
from skerry.agent.update.contract import Launch
from skerry.bundle.unpacked import unpack
from skerry.effects.system import SystemClock
from skerry.errors import AddressTaken, RunnerFailed, SelfTestFailed
from skerry.wire.v1.runner import Result, Route, Routes
from support import bundles

FAKE = (sys.executable, str(Path(__file__).parents[2] / "support" / "fake_runner.py"))
TIMING = Timing(start=20, serve=10, linger=0.3, end=5, figures=0.1, probe=0.1)


class Made:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: list[str] = []
        self.reports: list[object] = []
        self.changed = threading.Event()
        self.supervisor = self.make()

    def make(self, *, command=FAKE, ports: Ports | None = None, timing: Timing = TIMING) -> Supervisor:
        return Supervisor(
            Surroundings(state=self.folder, logs=self.folder / "logs", command=command, timing=timing),
            Outlets(
                result=self.result,
                figures=self.reports.append,
                changed=self.changed.set,
            ),
            SystemClock(),
            ports=ports,
            figures_seconds=0.2,
        )

    def result(self, process: RunnerProcess, result: Result) -> None:
        self.results.append(result.event_id)
        process.acked(result.n)

    def launch(self, version: str = "1.0.0", **labels: str) -> Launch:
        bundle = bundles.bundle(version=version, labels=labels)
        target = self.folder / "bundles" / bundle.digest.removeprefix("sha256:")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            unpack(bundle, target)
        return Launch(workload="eye", digest=bundle.digest, bundle_dir=str(target), variant="fp32")

    def serve(self, launch: Launch) -> None:
        self.supervisor.stage(launch)
        self.supervisor.promote("eye")

    def ask(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.supervisor.port('eye')}/", timeout=5) as reply:
            return str(reply.read().decode().split()[0])

    def tended(self) -> str:
        self.supervisor.tend(0.05)
        return self.supervisor.serving("eye")

    def until(self, what: str, check, seconds: float = 15.0) -> None:
        pause, end = threading.Event(), time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, what
            pause.wait(0.02)


@pytest.fixture
def made(tmp_path):
    it = Made(tmp_path)
    yield it
    it.supervisor.close()


def test_stage_promote_switch_stop(made):
    first, second = made.launch("1.0.0"), made.launch("2.0.0")
    made.supervisor.stage(first)
    assert (made.supervisor.staged("eye"), made.supervisor.serving("eye")) == (first.digest, "")
    made.supervisor.promote("eye")
    assert made.ask() == "digits:1.0.0"
    made.serve(second)
    made.until("the old one's last answer", lambda: made.ask() == "digits:2.0.0")
    assert made.supervisor.serving("eye") == second.digest
    made.supervisor.stop("eye")
    assert made.supervisor.serving("eye") == ""
    with pytest.raises(OSError, match="refused"):
        made.ask()


def test_failures_before_serving_leave_nothing_behind(made):
    with pytest.raises(SelfTestFailed, match="output y differs"):
        made.supervisor.stage(made.launch("1.0.0", **{"self-test": "fail"}))
    with pytest.raises(RunnerFailed, match="SKY-1002: cannot load"):
        made.supervisor.stage(made.launch("2.0.0", load="fail"))
    assert made.supervisor.staged("eye") == ""
    with pytest.raises(RunnerFailed, match="no tested runner"):
        made.supervisor.promote("eye")
    made.supervisor.discard("eye")


def test_program_that_is_not_there_or_says_nothing(made):
    missing = made.make(command=("/nonexistent/runner",))
    with pytest.raises(RunnerFailed, match="cannot be started"):
        missing.stage(made.launch())
    missing.close()
    silent = made.make(
        command=(sys.executable, "-c", "import threading; threading.Event().wait(30)"),
        timing=Timing(start=0.3, serve=1, linger=0.1, end=2),
    )
    with pytest.raises(RunnerFailed, match="not loaded within"):
        silent.stage(made.launch())
    silent.close()
    mute = made.make(command=(sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(RunnerFailed, match="exit code 3"):
        mute.stage(made.launch())
    mute.close()


def test_crash_is_restarted_and_seen_in_a_soak(made):
    launch = made.launch(crash="0.3")
    made.serve(launch)
    made.until("restart", lambda: made.supervisor.restarting("eye"))
    made.until("serving", lambda: made.tended() == launch.digest)
    made.supervisor.begin_soak("eye")
    made.until("crash in soak", lambda: (made.supervisor.soak("eye") or pytest.fail("no soak")).crashes == 1)
    assert not made.supervisor.restarting("eye")
    made.supervisor.end_soak("eye")
    assert made.supervisor.soak("eye") is None


def test_crash_loop_is_named(made):
    launch = made.launch(crash="0.0")
    made.serve(launch)
    made.until("a loop", lambda: made.tended() == "" and made.supervisor.crash_loop("eye", launch.digest))


def test_figures_and_results_reach_their_outlets(made):
    made.serve(made.launch(results="2"))
    made.until("results", lambda: len(made.results) >= 4 and bool(made.reports))
    assert len(set(made.results)) == len(made.results)
    assert made.reports[0].workload == "eye"


def test_ports_are_chosen_kept_and_told_when_taken(made, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        based = made.make(ports=Ports(base=taken))
        assert taken < based.listen("eye", 0) <= taken + 199
        assert based.listen("eye", 0) == based.port("eye")
        with pytest.raises(AddressTaken, match=f"cannot listen on 127.0.0.1:{taken}: Address already in use"):
            based.listen("ear", taken)
        based.close()


def test_two_agents_cannot_share_a_port_by_accident(made):
    port = made.supervisor.listen("eye", 0)
    other = made.make()
    with pytest.raises(AddressTaken):
        other.listen("eye", port)
    other.close()


class Killed:
    """A runner whose agent is gone."""

    CODE = """
import os, signal, sys
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from pathlib import Path
from unit.agent.test_supervisor import Made
made = Made(Path(sys.argv[1]))
made.serve(made.launch())
print(made.supervisor.port("eye"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

    def __init__(self, folder: Path) -> None:
        tests = Path(__file__).parents[2]
        command = [sys.executable, "-c", self.CODE, str(folder), str(tests), str(tests.parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        self.port = int(done.stdout)
        (orphan,) = find_orphans(folder)
        os.close(orphan.pidfd)
        self.pid = orphan.pid


@pytest.mark.parametrize("stealing", [True, False], ids=["pidfd_getfd", "SO_REUSEPORT"])
def test_runner_of_a_killed_agent_is_replaced_on_its_port(tmp_path, monkeypatch, stealing):
    killed = Killed(tmp_path)
    if not stealing:
        monkeypatch.setattr(sockets, "take_over", lambda *_, **__: None)
    made = Made(tmp_path)
    try:
        assert made.supervisor.listen("eye", killed.port) == killed.port
        assert made.ask() == "digits:1.0.0"
        made.serve(made.launch("2.0.0"))
        made.until("the end of the orphan", lambda: not Path(f"/proc/{killed.pid}").exists())
        assert made.ask() == "digits:2.0.0"
    finally:
        made.supervisor.close()


def test_orphan_of_a_workload_that_is_gone_is_ended(tmp_path):
    killed = Killed(tmp_path)
    supervisor = Made(tmp_path).supervisor
    supervisor.end_strays(frozenset())
    assert find_orphans(tmp_path) == ()
    assert not Path(f"/proc/{killed.pid}/exe").exists()
    supervisor.close()


def test_other_processes_are_never_taken_for_orphans(tmp_path):
    variables = {**os.environ, "SKERRY_RUNNER_OF": str(tmp_path / "another")}
    code = "import threading; threading.Event().wait(30)"
    with subprocess.Popen([sys.executable, "-c", code], env=variables) as stranger:
        assert find_orphans(tmp_path) == ()
        stranger.kill()


def test_runner_gets_no_secrets_and_cannot_phone_home(made, monkeypatch):
    monkeypatch.setenv("SKERRY_TOKEN", "hunter2")
    made.serve(made.launch())
    process = made.supervisor._slot("eye").serving
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"hunter2" not in environment
    assert b"ORT_DISABLE_TELEMETRY=1" in environment
    assert b"MALLOC_ARENA_MAX=1" in environment
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "500"


def test_runner_somebody_else_told_to_end_is_started_again(made):
    """It drains by itself, as one does that only says that it was drained."""
    launch = made.launch()
    made.serve(launch)
    first = made.supervisor._slot("eye").serving
    os.kill(first.pid, signal.SIGTERM)
    made.until("its end", lambda: not first.alive)
    made.until("another one", lambda: made.tended() == launch.digest)
    assert made.supervisor._slot("eye").serving is not first
    assert made.ask() == "digits:1.0.0"


def test_runner_that_does_not_listen_holds_up_nobody_and_is_replaced(made):
    made.supervisor.close()
    made.supervisor = made.make(timing=replace(TIMING, deaf=0.3))
    launch = made.launch()
    made.serve(launch)
    deaf = made.supervisor._slot("eye").serving
    os.kill(deaf.pid, signal.SIGSTOP)
    began = time.monotonic()
    routes = Routes(routes=tuple(Route(workload=f"w{n}", model="m", version="1") for n in range(200)))
    while deaf.alive:
        deaf.routes(routes)
        assert time.monotonic() - began < 20
    assert "did not read" in deaf.problem
    made.until("another one", lambda: made.tended() == launch.digest)
    assert made.ask() == "digits:1.0.0"


# --- kept warm


def test_the_version_before_is_kept_warm_and_brought_back(made):
    first, second = made.launch("1.0.0"), made.launch("2.0.0")
    made.serve(first)
    made.supervisor.stage(second)
    made.supervisor.promote("eye", keep_warm=True)
    made.supervisor.begin_soak("eye")
    before = {orphan.digest: orphan.pid for orphan in find_orphans(made.folder)}
    assert set(before) == {first.digest, second.digest}
    made.until("the new one's answer", lambda: made.ask() == "digits:2.0.0")
    assert not made.supervisor.bring_back("eye", "sha256:other")
    assert made.supervisor.bring_back("eye", first.digest)
    assert made.supervisor.serving("eye") == first.digest
    made.until("the old one's answer", lambda: made.ask() == "digits:1.0.0")
    made.until("the new one's end", lambda: len(find_orphans(made.folder)) == 1)
    assert [orphan.pid for orphan in find_orphans(made.folder)] == [before[first.digest]]
    assert made.supervisor.soak("eye") is None
    assert not made.supervisor.bring_back("eye", first.digest)


def test_what_is_kept_warm_is_the_first_to_go_when_memory_is_short(made):
    first, second = made.launch("1.0.0"), made.launch("2.0.0")
    made.serve(first)
    made.supervisor.stage(second)
    made.supervisor.promote("eye", keep_warm=True)
    kept = made.supervisor._slot("eye").warm
    score = Path(f"/proc/{kept.pid}/oom_score_adj")
    assert score.read_text().strip() == "800"
    assert set(made.supervisor.warm()) == {"eye"}
    assert made.supervisor.bring_back("eye", first.digest)
    assert score.read_text().strip() == "500"
    made.supervisor.stage(second)
    made.supervisor.promote("eye", keep_warm=True)
    made.supervisor.begin_soak("eye")
    made.supervisor.let_go("eye", "ear needs its memory")
    assert not kept.alive
    assert made.supervisor.warm() == {}
    assert made.supervisor.warmth("eye") == "ear needs its memory"
    assert made.supervisor.serving("eye") == second.digest
    assert not made.supervisor.bring_back("eye", first.digest)


def test_what_is_kept_warm_ends_with_the_soak(made):
    first, second = made.launch("1.0.0"), made.launch("2.0.0")
    made.serve(first)
    made.supervisor.stage(second)
    made.supervisor.promote("eye", keep_warm=True)
    made.supervisor.begin_soak("eye")
    made.supervisor.end_soak("eye")
    made.until("the old one's end", lambda: [orphan.digest for orphan in find_orphans(made.folder)] == [second.digest])
    assert made.supervisor.warmth("eye") == ""
    assert made.ask() == "digits:2.0.0"


def test_what_was_kept_warm_and_died_is_said_and_not_brought_back(made):
    first, second = made.launch("1.0.0"), made.launch("2.0.0")
    made.serve(first)
    made.supervisor.stage(second)
    made.supervisor.promote("eye", keep_warm=True)
    made.supervisor.begin_soak("eye")
    (pid,) = [orphan.pid for orphan in find_orphans(made.folder) if orphan.digest == first.digest]
    os.kill(pid, signal.SIGKILL)
    made.until("its end", lambda: "SIGKILL" in made.supervisor.warmth("eye"))
    assert not made.supervisor.bring_back("eye", first.digest)
    assert made.supervisor.soak("eye").crashes == 0
    assert made.ask() == "digits:2.0.0"


def test_an_agent_that_closed_shows_no_address_of_its_box(made):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    supervisor = made.make(ports=Ports(address=address))
    assert supervisor.address == address
    supervisor.close()
    assert supervisor.address == ""  # the agent's last status is written after this
