# SPDX-License-Identifier: Apache-2.0
"""The supervisor: one slot per workload with its listening socket, the runner that serves and the one being tried.

Switch without a dropped request: both runners hold the same listening socket; the new one accepts before the old one stops.
What is committed is started, and after a crash started again with growing pauses, in a thread of its own: one that hangs while
it loads keeps no other waiting. In a soak it is not started again: reconcile takes the version back instead.
"""

from __future__ import annotations

import contextlib
import logging
import threading

from skerry.agent.reconcile import Soak, TrialSeen
from skerry.agent.supervise.box import Inherited, open_box, shown
from skerry.agent.supervise.doors import Doors, Ports, open_doors, private_door
from skerry.agent.supervise.keeper import Keeper
from skerry.agent.supervise.leaving import Leaving
from skerry.agent.supervise.orphans import find_orphans
from skerry.agent.supervise.process import Listeners, RunnerProcess, Surroundings
from skerry.agent.supervise.slot import Outlets, Slot
from skerry.agent.supervise.slots import Slots
from skerry.agent.supervise.watch import FiguresWindow, SoakWatch
from skerry.agent.update.contract import Launch
from skerry.effects import Clock
from skerry.errors import RunnerFailed, SelfTestFailed
from skerry.wire.v1 import runner as wire
from skerry.wire.v1.device import Trial

_log = logging.getLogger(__name__)
_ENDING = "the agent is ending"
STARTS_AT_ONCE = 2  # while it loads, a model takes more memory than it keeps


class Supervisor:
    def __init__(
        self,
        surroundings: Surroundings,
        outlets: Outlets,
        clock: Clock,
        *,
        ports: Ports | None = None,
        figures_seconds: float = 5.0,
    ) -> None:
        self._surroundings = surroundings
        self._outlets = outlets
        self._clock = clock
        self._ports = ports or Ports()
        self._figures_seconds = figures_seconds
        self._slots = Slots()
        self._lock = self._slots.lock
        timing = surroundings.timing
        self._leaving = Leaving(patience=timing.linger + timing.end)
        self._listeners = Listeners(
            figures=self._on_figures, result=self._on_result, counts=self._on_counts, ended=self._on_ended
        )
        self._closing = False
        self._tend_now = threading.Event()
        self._starts = threading.BoundedSemaphore(STARTS_AT_ONCE)
        self._keeper = Keeper(clock, patience=surroundings.timing.patience, gave_up=self._gave_up)
        found = find_orphans(surroundings.state)
        for orphan in found:
            _log.warning("orphan pid=%d workload=%s digest=%s", orphan.pid, orphan.workload, orphan.digest)
            self._slot(orphan.workload).orphans.append(orphan)
        self._box = open_box(self._ports.address, found)

    # --- as update steps see it ---

    def listen(self, workload: str, port: int) -> int:
        slot = self._slot(workload)
        if slot.doors is None:
            slot.doors = open_doors(self._ports, workload, port, slot.orphans)
            slot.port = slot.doors.port
        return slot.port

    def start(self, launch: Launch) -> None:
        slot = self._slot(launch.workload)
        self.listen(launch.workload, slot.port)
        with self._lock:
            slot.again, slot.starting, slot.wanted = None, launch, launch
            if slot.serving is None and not slot.orphans:
                self._lacking(slot)
        self._start_aside(slot, launch)

    def stage(self, launch: Launch) -> None:
        slot = self._slot(launch.workload)
        self.discard(launch.workload)
        self.listen(launch.workload, slot.port)
        fresh = self._spawn(slot, launch, private=True)
        with self._lock:
            slot.staged = fresh
        try:
            fresh.await_self_test()
        except (RunnerFailed, SelfTestFailed):
            with self._lock:
                slot.staged = None
                slot.crashes.add(self._clock.monotonic(), launch.digest, started=False)
            raise

    def staged(self, workload: str) -> str:
        staged = self._slot(workload).staged
        return staged.launch.digest if staged is not None and staged.alive else ""

    def begin_trial(self, workload: str, trial: Trial) -> None:
        slot = self._slot(workload)
        candidate = slot.staged
        if candidate is None:
            raise RunnerFailed(workload=workload, problem="there is no tested runner to try")
        candidate.serve_privately()
        with self._lock:
            slot.begin_trial(trial, self._clock.monotonic())

    def end_trial(self, workload: str, *, reason: str = "", detail: str = "") -> None:
        with self._lock:
            run = self._slot(workload).end_trial()
        if run is not None:
            self._outlets.trial(run.report(self._clock.monotonic(), finished=True, reason=reason, detail=detail))

    def promote(self, workload: str, *, keep_warm: bool = False) -> None:
        slot = self._slot(workload)
        fresh = slot.staged
        if fresh is None:
            raise RunnerFailed(workload=workload, problem="there is no tested runner to switch to")
        try:
            self._serve(slot, fresh)
        finally:
            with self._lock:
                slot.staged = None
        with self._lock:
            if not self._closing:
                self._put_in_service(slot, fresh, keep_warm=keep_warm)
                return
        fresh.kill()
        raise RunnerFailed(workload=workload, problem=_ENDING)

    def bring_back(self, workload: str, digest: str) -> bool:
        slot = self._slot(workload)
        with self._lock:
            kept = slot.take_warm(digest) if not self._closing else None
        if kept is None:
            return False
        try:
            self._serve(slot, kept)
        except RunnerFailed:  # it is gone; what is committed is started anew
            return False
        with self._lock:
            self._put_in_service(slot, kept)
        return True

    def warmth(self, workload: str) -> str:
        return self._slot(workload).warmth

    def warm(self) -> dict[str, float]:
        return self._slots.warm()

    def let_go(self, workload: str, why: str) -> None:
        slot = self._slot(workload)
        with self._lock:
            kept = slot.take_warm()
            slot.warmth = why
        if kept is not None:
            kept.drain()

    def discard(self, workload: str) -> None:
        slot = self._slot(workload)
        with self._lock:
            staged, slot.staged = slot.staged, None
            slot.end_trial()
        if staged is not None:
            staged.kill()

    def stop(self, workload: str) -> None:
        slot = self._slot(workload)
        self.discard(workload)
        with self._lock:
            serving, slot.serving = slot.serving, None
            leftovers, slot.orphans = slot.orphans, []
            slot.soak = slot.again = slot.starting = None
            coming, doors, slot.doors, slot.wanted = slot.coming, slot.doors, None, None
            kept = slot.take_warm()
            self._keeper.removed(workload)
        if doors is not None:
            doors.close()
        self._tell_routes()
        if coming is not None:
            coming.kill()
        for each in (kept, serving):
            if each is not None:
                each.drain()
        self._leaving.end(leftovers)
        self._outlets.changed()

    def end_orphans(self, workload: str, digest: str) -> None:
        slot = self._slot(workload)
        with self._lock:
            ending = [orphan for orphan in slot.orphans if orphan.digest == digest]
            slot.orphans = [orphan for orphan in slot.orphans if orphan.digest != digest]
        self._leaving.end(ending)

    def serving(self, workload: str) -> str:
        serving = self._slot(workload).serving
        return serving.launch.digest if serving is not None and serving.alive else ""

    def begin_soak(self, workload: str) -> None:
        with self._lock:
            slot = self._slot(workload)
            slot.soak = SoakWatch(self._clock.monotonic())
            slot.window = FiguresWindow(seconds=0.0)  # while it soaks, every window is reported

    # --- as the agent sees it ---

    def end_soak(self, workload: str) -> None:
        with self._lock:
            slot = self._slot(workload)
            slot.soak = None
            slot.window = FiguresWindow(seconds=self._figures_seconds)
            self._leaving.retire(slot.take_warm())

    def trial(self, workload: str) -> TrialSeen | None:
        """What is seen of a trial; also reports it, when that is due."""
        with self._lock:
            look = self._slot(workload).look_at_trial
            seen, report = look(self._clock.monotonic(), report_every=self._figures_seconds)
        if report is not None:
            self._outlets.trial(report)
        return seen

    def soak(self, workload: str) -> Soak | None:
        with self._lock:
            slot = self._slot(workload)
            return slot.soak.view(self._clock.monotonic()) if slot.soak else None

    def crash_loop(self, workload: str, digest: str) -> bool:
        with self._lock:
            return self._slot(workload).crashes.loops(self._clock.monotonic(), digest)

    def restarting(self, workload: str) -> bool:
        """Whether the supervisor itself is about to start the runner again."""
        with self._lock:
            slot = self._slot(workload)
            return slot.starting is not None or slot.again is not None

    def problem(self, workload: str) -> str:
        """Why what is committed did not start when it was last tried; empty when it did."""
        return self._slot(workload).problem

    def port(self, workload: str) -> int:
        return self._slot(workload).port

    @property
    def address(self) -> str:
        return shown(self._box)

    def taken(self) -> dict[str, float]:
        """Workload -> MiB of memory its runners were last measured to hold; what is kept warm makes room and does not count."""
        return self._slots.held()

    def limits(self, workload: str) -> str:
        """Which limits its runner is kept to, and how; empty when none were asked for."""
        return serving.limits if (serving := self._slot(workload).serving) is not None else ""

    def doors(self, workload: str) -> Doors | None:
        return self._slot(workload).doors

    def keep(self, timeout: float) -> None:
        """One round of the keeper thread."""
        self._keeper.turn(timeout)

    def end_strays(self, keep: frozenset[str]) -> None:
        """End orphans of workloads that exist no more."""
        self._leaving.end(self._slots.take_strays(keep))

    def tend(self, timeout: float) -> None:
        """One round of the supervisor thread: start again what crashed and whose pause is over."""
        self._tend_now.wait(min(timeout, self._slots.next_again(self._clock.monotonic())))
        self._tend_now.clear()
        for slot in self._slots.all():
            with self._lock:
                launch = slot.again[1] if slot.again and slot.again[0] <= self._clock.monotonic() else None
                if launch is None or self._closing:
                    continue
                slot.again, slot.starting = None, launch
            _log.warning("start again workload=%s digest=%s", slot.workload, launch.digest)
            self._start_aside(slot, launch)

    def close(self) -> None:
        """Drain everything, all workloads at once."""
        with self._lock:
            self._closing = True
            names = [slot.workload for slot in self._slots.all()]
        self._tend_now.set()
        stops = [threading.Thread(target=self.stop, args=(name,), name=f"stop-{name}") for name in names]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join()
        self._leaving.join()
        self._keeper.close()
        box, self._box = self._box, None  # the last status asks for its address
        if box is not None:
            box.close()

    # --- inside ---

    def _slot(self, workload: str) -> Slot:
        return self._slots[workload]

    def _spawn(self, slot: Slot, launch: Launch, *, private: bool = False) -> RunnerProcess:
        if self._closing:
            raise RunnerFailed(workload=launch.workload, problem=_ENDING)
        if slot.doors is None:
            raise RunnerFailed(workload=launch.workload, problem="it has no listening socket")
        with contextlib.ExitStack() as passed_on:
            keeper = passed_on.enter_context(contextlib.closing(self._keeper.attach(launch.workload)))
            door, path = private_door(self._ports, launch.workload) if private else (None, "")
            if door is not None:
                passed_on.enter_context(contextlib.closing(door))
            inherited = Inherited(doors=slot.doors, keeper=keeper, box=self._box, private=door, private_path=path)
            return RunnerProcess(launch, inherited, self._surroundings, self._listeners)

    def _start_aside(self, slot: Slot, launch: Launch) -> None:
        """`slot.starting` is `launch`."""
        name = f"start-{slot.workload}"
        threading.Thread(target=self._start_now, args=(slot, launch), name=name, daemon=True).start()

    def _start_now(self, slot: Slot, launch: Launch) -> None:
        """Whatever was decided for the workload meanwhile has made `slot.starting` something else, and wins."""
        ready: RunnerProcess | None = None
        problem = ""
        try:
            with self._starts:
                ready = self._bring_up(slot, launch)
        except (RunnerFailed, SelfTestFailed) as error:
            problem = str(error)
        finally:
            with self._lock:
                slot.coming = None
                wanted = slot.starting is launch and slot.serving is None and not self._closing
                if slot.starting is launch:
                    slot.starting = None
                if wanted and ready is not None:
                    self._put_in_service(slot, ready)
                elif wanted and problem:
                    _log.warning("start failed workload=%s error=%s", slot.workload, problem)
                    slot.problem = problem
                    self._crashed(slot, launch, started=False)
        if ready is not None and not wanted:
            ready.kill()
        self._outlets.changed()

    def _bring_up(self, slot: Slot, launch: Launch) -> RunnerProcess:
        fresh = self._spawn(slot, launch)
        with self._lock:
            slot.coming = fresh
        fresh.await_self_test()
        if slot.starting is launch:
            self._serve(slot, fresh)
        return fresh

    def _serve(self, slot: Slot, fresh: RunnerProcess) -> None:
        if slot.doors is not None:
            slot.doors.listen()
        fresh.serve(self._slots.routes() if self._box is not None else None)

    def _put_in_service(self, slot: Slot, fresh: RunnerProcess, *, keep_warm: bool = False) -> None:
        """What served before drains, and ends unless it is kept warm. With the lock."""
        before, slot.serving = slot.serving, fresh
        leftovers, slot.orphans = slot.orphans, []
        slot.soak = slot.again = slot.starting = None
        slot.problem = ""
        slot.window = FiguresWindow(seconds=self._figures_seconds)
        slot.crashes.served(fresh.launch.digest)
        slot.wanted, slot.given_up = fresh.launch, False
        if slot.doors is not None:
            self._keeper.serves(slot.workload, slot.doors)
        self._tell_routes()
        if slot.trial is not None and fresh is not slot.trial.candidate:
            slot.trial.begin(fresh)
        self._lost_at_once(slot, fresh)
        self._leaving.retire(slot.take_warm())
        if keep_warm and before is not None and slot.keep_warm(before):
            before = None
        self._leaving.retire(before, leftovers)
        self._outlets.changed()

    def _lost_at_once(self, slot: Slot, fresh: RunnerProcess) -> None:
        """A runner that ended before it was known to be the one that serves: nobody heard of it."""
        with self._lock:
            if slot.serving is fresh and not fresh.alive:
                slot.serving = None
                self._crashed(slot, fresh.launch)

    def _crashed(self, slot: Slot, launch: Launch, *, started: bool = True) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if started:
                self._lacking(slot)
            slot.crashes.add(now, launch.digest, started=started)
            if slot.soak is not None:
                slot.soak.crashed()
            elif not self._closing and not slot.crashes.loops(now, launch.digest):
                slot.again = (now + slot.crashes.pause(now, launch.digest), launch)
            elif not self._closing:  # reconcile falls back; where there is nothing to fall back to, patience
                slot.again = (now + 30.0, launch)
        self._tend_now.set()
        self._outlets.changed()

    # --- the box

    def _lacking(self, slot: Slot) -> None:
        if slot.doors is not None and not self._closing:
            self._keeper.lacks(slot.workload, slot.doors)

    def _gave_up(self, workload: str) -> None:
        """From the keeper's thread."""
        with self._lock:
            self._slot(workload).given_up = True
        self._tell_routes()

    def _tell_routes(self) -> None:
        routes = self._slots.routes()
        for slot in self._slots.all() if self._box is not None else ():
            serving = slot.serving
            if serving is not None and serving.alive:
                serving.routes(routes)

    # --- from reader threads ---

    def _on_figures(self, process: RunnerProcess, figures: wire.Figures) -> None:
        launch = process.launch
        with self._lock:
            slot = self._slot(launch.workload)
            if slot.trial is not None:
                slot.trial.measured(process, figures)
            if slot.serving is not process or slot.window is None:
                return
            if slot.soak is not None:
                slot.soak.add(figures)
            report = slot.window.add(
                figures,
                workload=launch.workload,
                digest=launch.digest,
                variant=launch.variant,
                rollout=launch.rollout,
            )
            soaking = slot.soak is not None
        if report is not None:
            self._outlets.figures(report)
        if soaking:
            self._outlets.changed()

    def _on_counts(self, process: RunnerProcess, counts: wire.TrialCounts) -> None:
        with self._lock:
            slot = self._slot(process.launch.workload)
            if slot.trial is not None:
                slot.trial.counted(process, counts)
        self._outlets.changed()

    def _on_result(self, process: RunnerProcess, result: wire.Result) -> None:
        self._outlets.result(process, result)

    def _on_ended(self, process: RunnerProcess) -> None:
        if process.expected_to_end:
            return
        _log.error("runner ended workload=%s pid=%d why=%s", process.launch.workload, process.pid, process.problem)
        slot = self._slot(process.launch.workload)
        with self._lock:  # at once: or the updater would see neither a runner nor one that is about to come
            if slot.serving is process:
                slot.serving, slot.problem = None, process.problem
                self._crashed(slot, process.launch)
            elif slot.trial is not None and slot.trial.candidate is process:
                slot.trial.crashed = process.problem
            elif slot.warm is process:
                slot.warm, slot.warmth = None, f"the version before was kept warm, and {process.problem}"
        self._outlets.changed()
