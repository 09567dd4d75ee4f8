# SPDX-License-Identifier: Apache-2.0
"""Composition of an agent, and its threads:

    follower    asks the hub for the assignment
    updater     reconciles: the only one that writes records
    supervisor  starts crashed runners again
    keeper      holds a copy of every client connection, for when a runner dies
    reporter    sends the outbox
    writer      makes results durable
    main        watches the others, tells status and systemd, waits for a signal

A thread that ends by a defect or shows no life ends the agent, but not its runners: they serve on, systemd starts the agent
again, and that one takes them over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from skerry import __version__
from skerry.agent import capabilities as capability
from skerry.agent import memory
from skerry.agent.act import Actor, Means
from skerry.agent.config import AgentConfig
from skerry.agent.following import Follower
from skerry.agent.identity import load_identity
from skerry.agent.lock import StateLock
from skerry.agent.loops import Loops
from skerry.agent.notify import Notifier, watchdog_seconds
from skerry.agent.opening import open_ledger, recover_records, sweep
from skerry.agent.permits import Permits
from skerry.agent.reporting import Reporter
from skerry.agent.results import ResultWriter
from skerry.agent.state import Layout, Records, load_device
from skerry.agent.store import Store
from skerry.agent.supervise.doors import Ports, run_folder
from skerry.agent.supervise.groups import open_groups
from skerry.agent.supervise.process import Surroundings
from skerry.agent.supervise.slot import Outlets
from skerry.agent.supervise.supervisor import Supervisor
from skerry.agent.telling import Teller
from skerry.agent.transport import Backoff, HubRoad
from skerry.agent.updating import Updater
from skerry.effects.disk import DiskFiles
from skerry.effects.http import UrllibHttp
from skerry.effects.system import SystemClock, SystemEntropy
from skerry.errors import DeviceError, SkerryError, StateDamaged
from skerry.trust.catalogue import Catalogue, Source
from skerry.trust.fetcher import HttpFetcher
from skerry.wire.v1.report import FiguresReport, TrialReport

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LEAST_POLL, MOST_POLL = 0.1, 3600.0
_ONCE_PATIENCE = 0.5
_UPDATER_PATIENCE = 3.0


class Agent:
    """Raises NotEnrolled, StateDamaged, StateLocked while it is composed; holds the state folder until `run` returns."""

    def __init__(self, config: AgentConfig, stopping: threading.Event | None = None) -> None:
        """`stopping`, when given, is set by whoever wants the agent to end, also while it is still being composed."""
        self._config = config
        self._layout = Layout(config.state.resolve())
        self._files = DiskFiles()
        self._clock = SystemClock()
        self._entropy = SystemEntropy()
        self._device = load_device(self._files, self._layout)
        poll = self._device.poll_seconds if config.poll is None else config.poll
        self._poll = min(MOST_POLL, max(LEAST_POLL, poll))
        self._lock = StateLock(self._layout.lock)
        self._stopping = stopping or threading.Event()
        self._wake = threading.Event()
        self._notifier = Notifier()
        self._loops = Loops(self._clock, self._stopping, silence=config.silence + self._poll)
        measured = capability.measure(version=__version__)
        file = config.capability_file
        self._capabilities = capability.merge_file(measured, file) if file else measured
        try:
            self._compose()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def _compose(self) -> None:
        identity = load_identity(self._files, self._layout.key)
        factory_root = self._files.read(self._layout.factory_root)
        if identity is None or factory_root is None:
            gone = self._layout.key if identity is None else self._layout.factory_root
            raise StateDamaged(path=str(gone), problem="it is gone")
        device, config, http = self._device, self._config, self._http()
        self._ledger = open_ledger(
            self._files, self._layout, identity, device_id=device.device_id, now=self._clock.now()
        )
        self._outbox, self._history = self._ledger.outbox, self._ledger.history
        self._road = HubRoad(
            http,
            self._clock,
            self._entropy,
            hub=device.hub,
            identity=identity,
            device_id=device.device_id,
            audience=device.audience,
        )
        self._permits = Permits(
            self._catalogue(http, factory_root),
            self._files,
            self._layout,
            self._clock,
            device_id=device.device_id,
            policy=config.policy,
        )
        self._writer = ResultWriter(self._outbox)
        self._supervisor = Supervisor(
            Surroundings(
                state=self._layout.root,
                logs=self._layout.logs,
                command=config.runner_command,
                groups=open_groups(self._layout.root),
                sandbox=config.sandbox,
                shared_memory=config.shared_memory,
                access_log=config.access_log,
                timing=config.timing,
            ),
            Outlets(
                result=self._writer.result,
                figures=self._on_figures,
                changed=self._wake.set,
                trial=self._on_trial,
            ),
            self._clock,
            ports=Ports(
                host=config.listen_host,
                base=config.port_base,
                address=config.address,
                run=run_folder(self._layout.root),
            ),
            figures_seconds=config.figures,
        )
        self._compose_loops()

    def _compose_loops(self) -> None:
        self._records = Records(self._files, self._layout)
        self._follower = Follower(
            road=self._road,
            permits=self._permits,
            history=self._history,
            files=self._files,
            layout=self._layout,
            clock=self._clock,
            backoff=self._backoff(),
            changed=self._wake.set,
            poll=self._poll,
            refresh_every=self._config.refresh,
        )
        self._reporter = Reporter(self._outbox, self._road, self._backoff())
        self._actor = Actor(
            Means(
                records=self._records,
                history=self._history,
                store=Store(self._files, self._layout),
                runners=self._supervisor,
                road=self._road,
                permits=self._permits,
                capabilities=self._capabilities,
                clock=self._clock,
                boot=capability.boot_id(),
                memory_limit_mib=self._config.memory_limit_mib,
                stopping=self._stopping.is_set,
                taken=self._supervisor.taken,
            )
        )
        self._updater = Updater(
            actor=self._actor,
            records=self._records,
            supervisor=self._supervisor,
            clock=self._clock,
            trusted_now=self._permits.now,
            assignment=lambda: self._follower.assignment,
            new_backoff=self._backoff,
            stopping=self._stopping.is_set,
            beat=self._loops.beat,
        )
        self._teller = Teller(
            device=self._device,
            layout=self._layout,
            files=self._files,
            clock=self._clock,
            capabilities=self._capabilities,
            host=self._config.listen_host,
            shared_memory=self._config.shared_memory,
            records=self._records,
            supervisor=self._supervisor,
            permits=self._permits,
            follower=self._follower,
            updater=self._updater,
            outbox=self._outbox,
            history=self._history,
            history_broken=self._ledger.broken,
            started=self._clock.now(),
        )

    # --- life ---

    def run(self) -> str:
        """Until `stop`; then everything is drained. Returns the defect that ended it early, empty for none."""
        recover = partial(recover_records, self._records, self._ledger, self._clock)
        tidy = partial(sweep, self._files, self._layout)
        for beginning in (tidy, recover, self._actor.settle, self._follower.restore, self._teller.hello):
            self._calmly(beginning)
        wanted = (record.name for record in self._records.all() if record.committed or record.attempt)
        self._supervisor.end_strays(frozenset(wanted))
        memory.give_back()
        self._start_loops()
        defect = "its own watch failed"
        try:
            defect = self._watch()
        finally:
            if defect:
                self._abandon(defect)
            else:
                self._end()
        return defect

    def _start_loops(self) -> None:
        self._loops.start("updater", self._updater.round, wake=self._wake)
        self._loops.start("follower", partial(self._follower.round, self._stopping))
        self._loops.start("reporter", partial(self._reporter.round, LOOK_SECONDS))
        self._loops.start("supervisor", self._tend)
        self._loops.start("keeper", self._keep)
        self._loops.start("writer", partial(self._writer.round, LOOK_SECONDS))

    def stop(self) -> None:
        """Safe from a signal handler."""
        self._stopping.set()

    def _calmly(self, act: Callable[[], None]) -> None:
        """A disk that cannot be written keeps no model from serving."""
        try:
            act()
        except SkerryError as error:
            _log.error("code=%s error=%s", error.code, error)

    def _tend(self) -> float:
        self._supervisor.tend(LOOK_SECONDS)
        return 0.0

    def _keep(self) -> float:
        self._supervisor.keep(LOOK_SECONDS)
        return 0.0

    def _watch(self) -> str:
        """Until it is time to end. What is wrong with a thread, empty when that is not why."""
        every = watchdog_seconds()
        next_ping = 0.0
        self._notifier.tell(READY=1)
        idle_since: float | None = None
        while not self._stopping.wait(LOOK_SECONDS):
            now = self._clock.monotonic()
            if trouble := self._loops.trouble():
                return trouble
            self._calmly(self._teller.tell)
            if every and now >= next_ping:
                self._notifier.tell(WATCHDOG=1)
                next_ping = now + every
            if self._config.once:
                idle_since = (idle_since or now) if self._is_done() else None
                if idle_since is not None and now - idle_since >= _ONCE_PATIENCE:
                    break
        return ""

    def _is_done(self) -> bool:
        """For `--once`: asked, reconciled, reported."""
        asked = self._follower.reached is not None
        reported = not len(self._outbox) or self._reporter.reached is False
        return asked and self._updater.settled and reported

    def _end(self) -> None:
        """Everything is drained. The writer's thread is gone before its work is taken over here."""
        self._notifier.tell(STOPPING=1)
        self._stopping.set()
        self._wake.set()
        self._outbox.fresh.set()
        draining = threading.Thread(target=self._supervisor.close, name="close")
        draining.start()
        self._loops.join("writer", 2 * LOOK_SECONDS)
        while draining.is_alive():  # the last results still come in
            self._writer.round(0.05)
        self._writer.round(0.05)
        self._loops.join("updater", _UPDATER_PATIENCE)
        self._calmly(partial(self._teller.write_status, running=False))
        self._outbox.close()
        self._lock.__exit__(None, None, None)

    def _abandon(self, defect: str) -> None:
        """Touches nothing that a hanging thread may hold. To a runner this is what kill -9 is: it serves on."""
        _log.critical("the agent ends, its runners serve on defect=%s", defect)
        self._stopping.set()
        self._wake.set()
        self._lock.__exit__(None, None, None)

    def _on_figures(self, report: FiguresReport) -> None:
        self._writer.figures(self._clock.now(), report)

    def _on_trial(self, report: TrialReport) -> None:
        """At once, not by way of the writer: the hub has to know of a trial before it hears what became of the update."""
        try:
            self._outbox.put([(self._clock.now(), report)])
        except DeviceError as error:  # the device's own verdict stands without it
            _log.error("trial not reported error=%s", error)

    # --- parts ---

    def _http(self) -> UrllibHttp:
        return UrllibHttp(ca_file=self._device.ca_file or None, user_agent=f"skerry-agent/{__version__}")

    def _backoff(self) -> Backoff:
        """A device that asks often is meant to be quick: it also comes back quickly."""
        return Backoff(self._entropy, ceiling=min(60.0, max(5.0, self._poll)))

    def _catalogue(self, http: UrllibHttp, factory_root: bytes) -> Catalogue:
        base = f"{self._device.hub}/device/v1/catalogue"
        source = Source(metadata_url=base, targets_url=f"{base}/targets", fetcher=HttpFetcher(http, self._clock))
        metadata = self._layout.catalogue / "metadata"
        metadata.mkdir(parents=True, exist_ok=True)
        return Catalogue(
            metadata,
            source=source,
            targets_dir=self._layout.catalogue / "targets",
            factory_root=factory_root,
            files=self._files,
            clock=self._clock,
        )
