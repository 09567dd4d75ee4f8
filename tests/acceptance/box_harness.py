# SPDX-License-Identifier: Apache-2.0
"""A box: the agent's supervisor in this process, with its threads, and real runners. Also used by a benchmark."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from skerry.agent.supervise.doors import Doors, Ports
from skerry.agent.supervise.process import Surroundings, Timing
from skerry.agent.supervise.slot import Outlets
from skerry.agent.supervise.supervisor import Supervisor
from skerry.agent.supervise.watch import CrashLog
from skerry.agent.update.contract import Launch
from skerry.bundle.digest import digest_of
from skerry.bundle.manifest import BundleConfig
from skerry.effects.system import SystemClock

TIMING = Timing(start=60, serve=30, linger=0.5, end=15, figures=1.0, probe=0, patience=10)
"""Patient, because a machine that is busy with other tests takes long to start a runner."""


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class BoxAgent:
    def __init__(self, folder: Path, *, address: str = "", timing: Timing = TIMING, **ports) -> None:
        self.folder = folder
        self.address = address
        self.supervisor = Supervisor(
            Surroundings(state=folder, logs=folder / "logs", timing=timing),
            Outlets(result=lambda *_: None, figures=lambda *_: None, changed=lambda: None),
            SystemClock(),
            ports=Ports(address=address, run=folder / "run", **ports),
        )
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(turn,), daemon=True)
            for turn in (self.supervisor.tend, self.supervisor.keep)
        ]
        for thread in self._threads:
            thread.start()

    def launch(self, workload: str, bundle: Path) -> Launch:
        data = (bundle / "skerry.json").read_bytes()
        config = msgspec.json.decode(data, type=BundleConfig)
        return Launch(
            workload=workload,
            digest=digest_of(data),
            bundle_dir=str(bundle),
            variant="fp32",
            bundle=f"{config.name}:{config.version}",
        )

    def serve(self, workload: str, bundle: Path) -> None:
        """As an update does it: the new version is tested, then takes over from the one before."""
        self.supervisor.stage(self.launch(workload, bundle))
        self.supervisor.promote(workload)

    def pid(self, workload: str) -> int:
        serving = self.supervisor._slots[workload].serving
        return serving.pid if serving is not None else 0

    @property
    def tally(self) -> dict[str, int]:
        """What became of the connections of runners that died."""
        return {str(verdict): count for verdict, count in self.supervisor._keeper.tally.items()}

    def forget_crashes(self, workload: str) -> None:
        """As if a minute had passed: a test kills more often than a crash loop is allowed to."""
        self.supervisor._slots[workload].crashes = CrashLog()

    def doors(self, workload: str) -> Doors:
        doors = self.supervisor.doors(workload)
        assert doors is not None
        return doors

    def until(self, what: str, check: Callable[[], object], seconds: float = 30.0) -> None:
        pause, end = threading.Event(), time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, what
            pause.wait(0.01)

    def close(self) -> None:
        self.supervisor.close()
        self._ending.set()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repeat(self, turn: Callable[[float], None]) -> None:
        while not self._ending.is_set():
            turn(0.2)
