# SPDX-License-Identifier: Apache-2.0
"""What the supervisor knows of one workload, and where what its runners say goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from skerry.agent.reconcile import TrialSeen
from skerry.agent.supervise.doors import Doors
from skerry.agent.supervise.orphans import Orphan
from skerry.agent.supervise.process import RunnerProcess
from skerry.agent.supervise.trials import TrialRun
from skerry.agent.supervise.warm import KEPT_WARM, no_room
from skerry.agent.supervise.watch import CrashLog, FiguresWindow, SoakWatch
from skerry.agent.update.contract import Launch
from skerry.wire.v1 import runner as wire
from skerry.wire.v1.device import Trial
from skerry.wire.v1.report import FiguresReport, TrialReport

_MEMINFO: Final = Path("/proc/meminfo")


@dataclass(kw_only=True)
class Slot:
    workload: str
    doors: Doors | None = None
    port: int = 0
    serving: RunnerProcess | None = None
    staged: RunnerProcess | None = None
    orphans: list[Orphan] = field(default_factory=list)
    crashes: CrashLog = field(default_factory=CrashLog)
    soak: SoakWatch | None = None
    window: FiguresWindow | None = None
    trial: TrialRun | None = None  # of what is staged
    warm: RunnerProcess | None = None  # served before; loaded, and accepts nothing
    warmth: str = ""  # in words: that it is, or why it is not
    again: tuple[float, Launch] | None = None  # when to start what again
    problem: str = ""  # why the last start failed
    starting: Launch | None = None  # what is being started right now; None also when that is no longer wanted
    coming: RunnerProcess | None = None  # and as which process
    wanted: Launch | None = None  # what serves, or should
    given_up: bool = False  # for the moment: the agent answers in its stead

    def begin_trial(self, trial: Trial, now: float) -> None:
        """Of what is staged. `now` here and below in monotonic seconds."""
        if self.staged is not None:
            self.trial = TrialRun(trial=trial, candidate=self.staged, started=now)
            if self.serving is not None:
                self.trial.begin(self.serving)

    def end_trial(self) -> TrialRun | None:
        """The one that was under way."""
        run, self.trial = self.trial, None
        if run is not None and self.serving is not None:
            self.serving.end_trial()
        return run

    def look_at_trial(self, now: float, *, report_every: float) -> tuple[TrialSeen | None, TrialReport | None]:
        """What is seen of it, and what is to be reported when that is due."""
        if self.trial is None:
            return None, None
        coming = self.starting is not None or self.again is not None
        down = self.wanted is not None and self.crashes.loops(now, self.wanted.digest)
        seen = self.trial.seen(now, against=self.serving is not None or (coming and not down))
        return seen, self.trial.due(now, every=report_every)

    def resident_mib(self) -> float:
        """Of the runner that serves and the one being tried; what is kept warm makes room where it is needed."""
        runners = (self.serving, self.staged)
        return sum(runner.resident_mib for runner in runners if runner is not None and runner.alive)

    def keep_warm(self, before: RunnerProcess) -> bool:
        """Whether the version before stays."""
        self.warmth = no_room(_MEMINFO.read_text("ascii")) if _MEMINFO.exists() else ""
        if self.warmth or not before.alive:
            return False
        before.rest()
        self.warm, self.warmth = before, KEPT_WARM
        return True

    def take_warm(self, digest: str = "") -> RunnerProcess | None:
        """What was kept warm, for whoever ends it or lets it serve; with a `digest`, only if it is that."""
        if self.warm is not None and digest not in {"", self.warm.launch.digest}:
            return None
        kept, self.warm, self.warmth = self.warm, None, ""
        return kept


@dataclass(frozen=True, kw_only=True)
class Outlets:
    """Where what runners say goes. Called on reader threads."""

    result: Callable[[RunnerProcess, wire.Result], None]
    figures: Callable[[FiguresReport], None]
    changed: Callable[[], None]
    trial: Callable[[TrialReport], None] = lambda _: None  # from whoever asks for `trial` or ends it
