# SPDX-License-Identifier: Apache-2.0
"""A real agent in a process of its own, to be killed: runner processes without an engine, and a hub over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec

from skerry.agent.join import JoinRequest
from skerry.agent.main import join, status
from skerry.agent.store import Marker
from skerry.agent.supervise.orphans import find_orphans
from skerry.bundle.digest import digest_of
from support.mini_hub import MiniHub

FAKE_RUNNER = Path(__file__).with_name("fake_runner.py")
RUN = """
import sys
from pathlib import Path
from skerry.agent.config import AgentConfig
from skerry.agent.main import run
from skerry.agent.supervise.process import Timing
exec(sys.argv[3])
sys.exit(run(AgentConfig(
    state=Path(sys.argv[1]),
    poll=0.2,
    figures=0.2,
    silence=2.0,
    runner_command=(sys.executable, sys.argv[2]),
    timing=Timing(start=20, serve=10, linger=0.3, end=3, figures=0.1, probe=0.1),
)))
"""


class Device:
    def __init__(self, folder: Path, hub: MiniHub) -> None:
        self.state = folder / "state"
        self.log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        join(self.state, JoinRequest(hub=hub.url, token="one-time", name="killed"))

    def start(self, *, sabotage: str = "", **environment: str) -> None:
        """`sabotage` is Python that runs in the agent's process before the agent does."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", RUN, str(self.state), str(FAKE_RUNNER), sabotage]
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **environment})

    @property
    def live(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def kill(self) -> None:
        self.live.kill()
        self.live.wait(10)

    def stop(self) -> None:
        self.live.send_signal(signal.SIGTERM)
        assert self.live.wait(30) == 0, self.log.read_text()[-3000:]

    def ask(self) -> str:
        work = next(work for work in status(self.state).workloads if work.name == "eye")
        with urllib.request.urlopen(work.url, timeout=5) as reply:
            return str(reply.read().decode())

    def bundle(self) -> str:
        """What this very agent, not one killed before it, says it serves."""
        told = status(self.state)
        return next((work.bundle for work in told.workloads if work.url and told.pid == self.live.pid), "")

    def half_installed(self) -> list[str]:
        """Visible blobs and bundles that are not whole."""
        blobs = [blob for blob in (self.state / "blobs").rglob("*") if blob.is_file() and not blob.name.startswith(".")]
        wrong = [blob.name for blob in blobs if digest_of(blob.read_bytes()) != f"sha256:{blob.name}"]
        for path in (self.state / "bundles").glob("[!.]*.json"):
            marker = msgspec.json.decode(path.read_bytes(), type=Marker)
            folder = path.with_suffix("")
            wrong += [
                f"{path.name} {file.path}"
                for file in marker.files
                if digest_of((folder / file.path).read_bytes()) != file.digest
            ]
        return wrong

    def until(self, what: str, check: Callable[[], bool], seconds: float = 20) -> None:
        pause, end = threading.Event(), time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, f"{what}\n{self.log.read_text()[-4000:]}"
            pause.wait(0.02)

    def close(self) -> None:
        """Also what a failed test left behind."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        for orphan in find_orphans(self.state):
            orphan.end(patience=1)
