# SPDX-License-Identifier: Apache-2.0
"""A device on a bench: a real agent in this process, runner processes without an engine, and a hub over HTTP."""

from __future__ import annotations

import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skerry.agent.app import Agent
from skerry.agent.config import AgentConfig
from skerry.agent.join import JoinRequest
from skerry.agent.main import join
from skerry.agent.supervise.process import Timing
from skerry.wire.v1.device import BundleRef, WorkloadSpec
from support.mini_hub import MiniHub
from support.victim import Owner

FAKE_RUNNER = (sys.executable, str(Path(__file__).with_name("fake_runner.py")))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.owner = Owner(now=time.time())
        self.hub = MiniHub(self.owner)
        self.state = folder / "state"
        self.agent: Agent | None = None
        self._thread: threading.Thread | None = None

    def join(self) -> None:
        join(self.state, JoinRequest(hub=self.hub.url, token="one-time", name="bench"))

    def start(self, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "state": self.state,
            "poll": 0.2,
            "figures": 0.2,
            "runner_command": FAKE_RUNNER,
            "timing": Timing(start=20, serve=10, linger=0.5, end=5, figures=0.1, probe=0.1),
        }
        self.agent = None
        self.agent = Agent(AgentConfig(**{**settings, **changes}))
        self._thread = threading.Thread(target=self.agent.run, name="agent")
        self._thread.start()

    def stop(self) -> None:
        if self.agent is None or self._thread is None:
            return
        self.agent.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.agent = None

    def close(self) -> None:
        self.stop()
        self.hub.stop()

    def spec(self, ref: BundleRef, *, name: str = "eye", soak: float = 0.3, **fields: Any) -> WorkloadSpec:
        return WorkloadSpec(name=name, bundle=ref, soak_seconds=soak, **fields)

    def workload(self, name: str = "eye") -> Any:
        assert self.agent is not None
        return next((work for work in self.agent._teller.workloads() if work.name == name), None)

    def ask(self, name: str = "eye") -> str:
        """name:version that answers."""
        with urllib.request.urlopen(self.workload(name).url, timeout=5) as reply:
            return str(reply.read().decode().split()[0])

    def until(self, what: str, check: Callable[[], bool], seconds: float = 20.0) -> None:
        pause, end = threading.Event(), time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, f"{what} did not happen; reports {self.hub.bodies(object)[-6:]}"
            pause.wait(0.02)

    def committed(self, ref: BundleRef) -> None:
        self.until(f"commit of {ref.name}", lambda: "committed" in self.hub.states(ref))
