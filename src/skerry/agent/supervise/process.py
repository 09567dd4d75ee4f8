# SPDX-License-Identifier: Apache-2.0
"""One runner process and the conversation with it (wire.v1.runner). Safe from several threads.

A reader thread turns lines into events; whoever waits is woken. The process is reaped by the reader when its socket ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from skerry.agent.state import UNREADABLE, Layout
from skerry.agent.supervise import orphans
from skerry.agent.supervise.box import Inherited
from skerry.agent.supervise.groups import Groups, Mechanism
from skerry.agent.supervise.logs import bound_log, open_log
from skerry.agent.update.contract import Launch
from skerry.bundle.digest import hex_of
from skerry.errors import RunnerFailed, SelfTestFailed, StorageError
from skerry.wire.v1 import runner as wire
from skerry.wire.v1.device import Trial

_log = logging.getLogger(__name__)
_event = msgspec.json.Decoder(wire.Event)

LINE_LIMIT = 1024 * 1024
OOM_SCORE = 500  # the kernel should choose a runner before the agent ...
OOM_SCORE_SPARE = 800  # ... and before that one which no client needs: tried, or kept warm
SELF_TEST_EXIT = 5

COMMAND = (sys.executable, "-m", "skerry.runner")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds."""

    start: float = 180.0
    serve: float = 30.0
    linger: float = 5.0
    end: float = 15.0
    figures: float = 1.0
    probe: float = 1.0
    deaf: float = 5.0  # how long a runner may leave what it is told unread, once that fills the socket
    patience: float = 1.5  # while no runner of a workload is up; then the agent answers in its stead


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every runner of this agent gets."""

    state: Path
    logs: Path
    command: tuple[str, ...] = COMMAND
    sandbox: bool = True
    shared_memory: bool = False
    access_log: bool = False
    groups: Groups = field(default_factory=Groups)
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Called on the reader thread; must not block for long."""

    figures: Callable[[RunnerProcess, wire.Figures], None]
    result: Callable[[RunnerProcess, wire.Result], None]
    counts: Callable[[RunnerProcess, wire.TrialCounts], None]
    ended: Callable[[RunnerProcess], None]


class RunnerProcess:
    def __init__(self, launch: Launch, inherited: Inherited, surroundings: Surroundings, listeners: Listeners) -> None:
        """Starts the process. Raises RunnerFailed when there is not even that."""
        self.launch = launch
        self.private_path = inherited.private_path
        self._timing = surroundings.timing
        self._log_path = _log_path(surroundings, launch)
        self._listeners = listeners
        self._changed = threading.Condition()
        self._loaded: wire.Loaded | None = None
        self._tested: wire.SelfTested | None = None
        self._serving = False
        self._failure = ""
        self._over = False
        self._drained = False
        self.expected_to_end = False
        self.resident_mib = 0.0  # as it last said
        self._control, theirs = socket.socketpair()
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._timing.deaf))
        try:
            self._process = _spawn(launch, inherited, theirs, surroundings)
        except OSError as error:
            self._control.close()
            raise RunnerFailed(workload=launch.workload, problem=f"cannot be started: {error}") from error
        finally:
            theirs.close()
        self._groups = surroundings.groups
        self.limits = self._groups.place(self.pid, launch.workload, launch.limits)
        self._reader = threading.Thread(target=self._read, name=f"runner-{launch.workload}", daemon=True)
        self._reader.start()
        numbers = inherited.numbers()
        self._send(
            wire.Start(
                workload=launch.workload,
                bundle_dir=launch.bundle_dir,
                variant=launch.variant,
                config_digest=launch.config_digest,
                listen_fd=numbers.get("listen_fd", -1),
                unix_fd=numbers.get("unix_fd", -1),
                box_fd=numbers.get("box_fd", -1),
                exchange_fd=numbers.get("exchange_fd", -1),
                keeper_fd=numbers.get("keeper_fd", -1),
                private_fd=numbers.get("private_fd", -1),
                memory_limit_mib=_address_space(launch, surroundings.groups),
                figures_seconds=self._timing.figures,
                probe_seconds=self._timing.probe,
                linger_seconds=self._timing.linger,
                sandbox=surroundings.sandbox,
                shared_memory=surroundings.shared_memory,
                access_log=surroundings.access_log,
                cache_dir=_cache_folder(surroundings.state, launch.digest),
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._over

    @property
    def problem(self) -> str:
        """Why it ended, in words."""
        return self._failure or f"it ended with {_exit_words(self._process.returncode)}"

    def await_self_test(self) -> None:
        """Raises RunnerFailed, SelfTestFailed; the process is gone then."""
        with self._changed:
            settled = self._changed.wait_for(lambda: self._tested or self._over, self._timing.start)
        tested = self._tested
        if tested is not None and tested.passed:
            return
        self.kill()
        if tested is not None:
            raise SelfTestFailed(variant=self.launch.variant, problem=tested.problem)
        if settled:
            raise RunnerFailed(workload=self.launch.workload, problem=self.problem)
        raise RunnerFailed(workload=self.launch.workload, problem=f"not loaded within {self._timing.start:g} s")

    def serve(self, routes: wire.Routes | None = None) -> None:
        """Returns when it accepts connections. Raises RunnerFailed; the process is gone then."""
        self._groups.settle(self.pid, self.launch.workload, self.launch.limits)
        self._may_go(OOM_SCORE)
        if routes is not None:
            self._send(routes)
        self._serve(wire.Serve())

    def serve_privately(self) -> None:
        """Only at `private_path`. Raises StorageError where there is none, RunnerFailed as `serve` does."""
        if not self.private_path:
            raise StorageError(path="run", problem="there is no place for a unix socket, which a trial needs")
        self._groups.ease(self.pid, self.launch.workload, self.launch.limits)
        self._may_go(OOM_SCORE_SPARE)
        self._serve(wire.Serve(private=True))

    def _serve(self, command: wire.Serve) -> None:
        with self._changed:
            self._serving = False
        self._send(command)
        with self._changed:
            self._changed.wait_for(lambda: self._serving or self._over, self._timing.serve)
        if not self._serving or self._over:
            self.kill()
            raise RunnerFailed(workload=self.launch.workload, problem=self.problem)

    def rest(self) -> None:
        """Accept nothing more, finish what is there, stay loaded: `serve` wakes it up."""
        self._may_go(OOM_SCORE_SPARE)
        self._send(wire.Rest())

    def begin_trial(self, path: str, version: str, trial: Trial) -> None:
        self._send(wire.BeginTrial(path=path, version=version, trial=trial))

    def end_trial(self) -> None:
        self._send(wire.EndTrial())

    def acked(self, through: int) -> None:
        self._send(wire.Acked(through=through))

    def routes(self, routes: wire.Routes) -> None:
        self._send(routes)

    def drain(self) -> None:
        """Finish what is there and end; killed when that takes too long."""
        self.expected_to_end = True
        self._send(wire.Drain())
        with self._changed:
            done = self._changed.wait_for(lambda: self._over, self._timing.linger + self._timing.end)
        if not done:
            _log.warning("drain took too long pid=%d workload=%s", self.pid, self.launch.workload)
            self.kill()

    def kill(self) -> None:
        """Gone when it returns."""
        self.expected_to_end = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        with self._changed:
            self._changed.wait_for(lambda: self._over, self._timing.end)

    def _may_go(self, score: int) -> None:
        """How soon the kernel may choose it when memory is short."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(score), "ascii")

    # --- the conversation ---

    def _send(self, command: wire.Command) -> None:
        try:
            self._control.sendall(msgspec.json.encode(command) + b"\n")
        except BlockingIOError:  # stopped, or worse: it must hold up neither the agent nor other workloads
            self._failure = "it did not read what it was told"
            _log.error("runner is deaf pid=%d workload=%s", self.pid, self.launch.workload)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        except OSError:  # it is gone: the reader notices and says why
            _log.debug("send failed workload=%s", self.launch.workload)

    def _read(self) -> None:
        try:
            with self._control.makefile("rb") as lines:
                while line := lines.readline(LINE_LIMIT + 1):
                    if len(line) > LINE_LIMIT:
                        self._failure = "it sent a line that is too long"
                        break
                    self._take(line)
        except OSError as error:
            _log.debug("read failed workload=%s error=%s", self.launch.workload, error)
        finally:
            self._reap()

    def _take(self, line: bytes) -> None:
        try:
            event = _event.decode(line)
        except UNREADABLE as error:
            _log.warning("not understood workload=%s error=%s", self.launch.workload, error)
            return
        match event:
            case wire.Figures():
                self.resident_mib = event.rss_mib
                bound_log(self._log_path)
                self._listeners.figures(self, event)
            case wire.Result():
                self._listeners.result(self, event)
            case wire.TrialCounts():
                self._listeners.counts(self, event)
            case _:
                self._note(event)

    def _note(
        self, event: wire.Loaded | wire.SelfTested | wire.Serving | wire.Resting | wire.Failed | wire.Drained
    ) -> None:
        with self._changed:
            match event:
                case wire.Loaded():
                    self._loaded, self.resident_mib = event, event.rss_mib
                    self._tell_sandbox(event.sandbox)
                case wire.SelfTested():
                    self._tested = event
                case wire.Serving():
                    self._serving = True
                case wire.Failed():
                    self._failure = f"{event.code}: {event.message}"
                case wire.Resting():
                    _log.info("rests pid=%d workload=%s", self.pid, self.launch.workload)
                case wire.Drained():  # told to or not: whether that was expected is not the runner's to say
                    self._drained = True
            self._changed.notify_all()

    def _tell_sandbox(self, layers: Mapping[str, str]) -> None:
        """A layer that is missing is for people to know: the model's code could do more than it should."""
        for layer, state in layers.items():
            level = logging.INFO if state.startswith("on") else logging.WARNING
            _log.log(level, "sandbox workload=%s pid=%d %s=%s", self.launch.workload, self.pid, layer, state)

    def _reap(self) -> None:
        try:
            self._process.wait(self._timing.end if self.expected_to_end or self._drained else 1.0)
        except subprocess.TimeoutExpired:  # it closed its socket but lives: nobody could tell it anything any more
            self._process.kill()
            self._process.wait()
        self._control.close()
        limit = self._groups.left(self.pid, self.launch.workload)
        self._failure = self._failure or limit
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._listeners.ended(self)


def _spawn(
    launch: Launch, inherited: Inherited, theirs: socket.socket, surroundings: Surroundings
) -> subprocess.Popen[bytes]:
    with open_log(_log_path(surroundings, launch)) as log:
        process = subprocess.Popen(
            [*surroundings.command, "--control-fd", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs.fileno(), *inherited.numbers().values()),
            env=_environment(os.environ, launch, inherited, surroundings.state),
            start_new_session=True,  # Ctrl-C in a terminal reaches the agent, which drains
        )
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_text(str(OOM_SCORE), "ascii")
    return process


def _address_space(launch: Launch, groups: Groups) -> int:
    """MiB; 0 = no limit. Where no group bounds memory itself, this is what is left."""
    asked = launch.limits.memory_mib if groups.mechanism is Mechanism.NONE else 0
    return min(filter(None, (launch.memory_limit_mib, asked)), default=0)


def _cache_folder(state: Path, digest: str) -> str:
    """Made here, since the runner may make no folder; one per bundle, so that no model's code can touch another's."""
    folder = Layout(state).cache / hex_of(digest)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("no cache for digest=%s error=%s", digest, error)
        return ""
    return str(folder)


def _log_path(surroundings: Surroundings, launch: Launch) -> Path:
    return surroundings.logs / f"{launch.workload}.log"


_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
)


def _environment(ours: Mapping[str, str], launch: Launch, inherited: Inherited, state: Path) -> dict[str, str]:
    """Nothing of the agent's that a runner does not need, above all no tokens."""
    numbers = inherited.numbers()
    return {
        **{name: ours[name] for name in _PASSED_ON if name in ours},
        "ORT_DISABLE_TELEMETRY": "1",
        "MALLOC_ARENA_MAX": "1",
        orphans.STATE_VARIABLE: str(state.resolve()),
        orphans.WORKLOAD_VARIABLE: launch.workload,
        orphans.DIGEST_VARIABLE: launch.digest,
        orphans.PORT_VARIABLE: str(inherited.doors.port),
        **{variable: str(numbers[name]) for name, variable in orphans.NUMBERS.items() if name in numbers},
    }


def _timeval(seconds: float) -> bytes:
    """socket(7), SO_SNDTIMEO."""
    whole = int(seconds)
    return struct.pack("@ll", whole, int((seconds - whole) * 1e6))


def _exit_words(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
