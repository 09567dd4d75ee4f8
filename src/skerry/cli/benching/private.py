# SPDX-License-Identifier: Apache-2.0
"""A runner of our own for one measurement, started as the agent starts one: inherited sockets, a control channel, its environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import msgspec

from skerry.errors import RunnerFailed, SelfTestFailed
from skerry.wire.v1.runner import Event, Failed, Loaded, SelfTested, Serve, Serving, Start

_START_SECONDS: Final = 180.0
_END_SECONDS: Final = 10.0
_BACKLOG: Final = 512
_ENVIRONMENT: Final = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MALLOC_ARENA_MAX": "1",
}
"""As agent/supervise/process.py sets it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What may differ between two runs of one bundle. `start` are fields of the runner's `Start`."""

    variant: str
    environment: dict[str, str] = field(default_factory=dict)
    probe_seconds: float = 0.0


class PrivateRunner:
    """Serves on `address` (TCP) and on `path` (unix socket). `took` is the seconds from its start to accepting connections."""

    def __init__(self, bundle: Path, setting: Setting, *, folder: Path, python: str = sys.executable) -> None:
        """Returns when it was spawned; its sockets queue what comes before `serve` returns."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.path = folder / f"r{self._listener.getsockname()[1]}.sock"
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(str(self.path))
        self._unix.listen(_BACKLOG)
        self._log = (folder / f"r{self.port}.log").open("w+b")
        self._control, theirs = socket.socketpair()
        self.begun = time.monotonic()
        self.took = 0.0
        passed = (theirs.fileno(), self._listener.fileno(), self._unix.fileno())
        self.process = subprocess.Popen(
            [python, "-m", "skerry.runner", "--control-fd", str(theirs.fileno())],
            pass_fds=passed,
            env={**os.environ, **_ENVIRONMENT, **setting.environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        theirs.close()
        self._events = self._control.makefile("rb")
        start = Start(
            workload="bench",
            bundle_dir=str(bundle),
            variant=setting.variant,
            listen_fd=passed[1],
            unix_fd=passed[2],
            probe_seconds=setting.probe_seconds,
        )
        self._send(start)
        self._send(Serve())

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def pid(self) -> int:
        return self.process.pid

    def serve(self) -> Self:
        """Wait until it accepts connections. Raises RunnerFailed, SelfTestFailed; it is gone then."""
        self._control.settimeout(_START_SECONDS)
        try:
            for line in self._events:
                if self._settled(msgspec.json.decode(line, type=Event)):
                    self.took = time.monotonic() - self.begun
                    return self
        except TimeoutError as error:
            self.stop()
            raise RunnerFailed(workload="bench", problem=f"not loaded within {_START_SECONDS:g} s") from error
        self.stop()
        raise RunnerFailed(workload="bench", problem=f"it ended: {self._last_words()}")

    def _settled(self, event: Event) -> bool:
        match event:
            case SelfTested(passed=False):
                self.stop()
                raise SelfTestFailed(variant="of the bundle", problem=event.problem)
            case Failed():
                self.stop()
                raise RunnerFailed(workload="bench", problem=f"{event.code} {event.message}")
            case Serving():
                return True
            case Loaded() | _:
                return False

    def stop(self) -> None:
        """At once, whatever it was doing: nobody else asks it anything. May be called twice."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(_END_SECONDS)
        for each in (self._events, self._control, self._listener, self._unix):
            each.close()
        self.path.unlink(missing_ok=True)

    def _last_words(self) -> str:
        if self._log.closed:
            return "?"
        self._log.seek(0)
        return self._log.read()[-400:].decode("utf-8", "replace").strip() or "without a word"

    def _send(self, command: Start | Serve) -> None:
        with contextlib.suppress(OSError):  # it ended: `serve` says why
            self._control.sendall(msgspec.json.encode(command) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
