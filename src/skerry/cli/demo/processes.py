# SPDX-License-Identifier: Apache-2.0
"""The demo's real processes: one hub and five agents on loopback, started and ended by PID."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from skerry.errors import WaitTimedOut

SKERRY = [sys.executable, "-m", "skerry.cli.main"]
AGENT = [sys.executable, "-m", "skerry.agent.main"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(what: str, check: Callable[[], bool], seconds: float) -> None:
    """Poll `check` every 50 ms; raises WaitTimedOut."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.05)
    raise WaitTimedOut(what=what, seconds=seconds)


@dataclass(slots=True, kw_only=True)
class Process:
    """A child that is restarted with the same command and whose output goes to a log file."""

    command: list[str]
    log: Path
    environment: dict[str, str]
    folder: Path
    _running: subprocess.Popen[bytes] | None = None
    _output: IO[bytes] | None = None

    def start(self) -> None:
        self._output = self.log.open("ab")
        self._running = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=self.folder,
            start_new_session=True,
        )

    def stop(self, *, seconds: float = 15.0) -> None:
        """SIGTERM, then SIGKILL to what is left of its session."""
        if self._running is None:
            return
        self._running.terminate()
        try:
            self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait(seconds)
        if self._output:
            self._output.close()
        self._running = None

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


@dataclass(slots=True, kw_only=True)
class Device:
    name: str
    labels: dict[str, str]
    capabilities: dict[str, Any]
    state: Path
    process: Process
    id: str = ""

    def status(self) -> dict[str, Any]:
        """The agent's own status file; empty while it has none."""
        try:
            loaded: dict[str, Any] = json.loads((self.state / "status.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return loaded

    def workload(self, name: str) -> dict[str, Any]:
        found = [entry for entry in self.status().get("workloads", []) if entry.get("name") == name]
        return found[0] if found else {}


@dataclass(slots=True, kw_only=True)
class World:
    """Everything the demo started; `close` ends it all, last started first."""

    folder: Path
    hub: Process
    hub_url: str
    devices: list[Device] = field(default_factory=list)

    def close(self) -> None:
        for device in self.devices:
            device.process.stop()
        self.hub.stop()
