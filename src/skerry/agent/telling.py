# SPDX-License-Identifier: Apache-2.0
"""What an agent says of itself: to the hub (hello, issues), and on this machine (status.json)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from skerry import __version__
from skerry.agent import capabilities as capability
from skerry.agent import memory
from skerry.agent.checks import Issue, Observed
from skerry.agent.checks.all import issues
from skerry.agent.following import Follower
from skerry.agent.history import History
from skerry.agent.outbox import Outbox
from skerry.agent.permits import Permits
from skerry.agent.state import Device, Layout, Phase, Records, WorkloadRecord
from skerry.agent.status import Status, WorkloadStatus, write_status
from skerry.agent.supervise.supervisor import Supervisor
from skerry.agent.updating import Updater
from skerry.effects import Clock
from skerry.effects.disk import DiskFiles
from skerry.wire.v1.device import Capabilities
from skerry.wire.v1.report import DeviceReport

STATUS_SECONDS = 5.0
_WATCHED = {Phase.TRIAL: "trying", Phase.SOAK: "soaking"}


@dataclass(kw_only=True)
class Teller:
    device: Device
    layout: Layout
    files: DiskFiles
    clock: Clock
    capabilities: Capabilities
    host: str
    shared_memory: bool
    records: Records
    supervisor: Supervisor
    permits: Permits
    follower: Follower
    updater: Updater
    outbox: Outbox
    history: History
    history_broken: str
    started: float
    _told: tuple[int, tuple[str, ...]] | None = None
    _shown: tuple[WorkloadStatus, ...] = ()
    _next_status: float = field(default=0.0)

    def hello(self) -> None:
        fields = {"version": __version__, "boot": capability.boot_id()}
        self.history.append("agent-started", at=self.clock.now(), fields=fields)

    def tell(self) -> None:
        """One look: what changed is told. Raises StorageError."""
        self._tell_hub()
        now = self.clock.monotonic()
        if now >= self._next_status or self._shown != self.workloads():
            self.write_status()
            self._next_status = now + STATUS_SECONDS

    def _issues(self) -> tuple[Issue, ...]:
        floors = self.permits.floors
        loops = tuple(
            record.name
            for record in self.records.all()
            if record.committed and self.supervisor.crash_loop(record.name, record.committed.ref.digest)
        )
        return issues(
            Observed(
                now=self.clock.now(),
                free=self.files.free(self.layout.root),
                time_floor=floors.time,
                hub_ahead=self.follower.hub_ahead,
                refreshed=self.permits.refreshed,
                started=self.started,
                crash_loops=loops,
                history_broken=self.history_broken,
                floors_damaged=str(self.permits.damage or ""),
                outbox_dropped=self.outbox.dropped,
                assignment_refused=self.follower.refused,
            )
        )

    def _tell_hub(self) -> None:
        """On start, when the set of issues changes (the hub's assignment was refused, say: then the hub must learn which one
        is in force), and when another assignment is: of one that asks for nothing new, the device would else say no word.
        """
        found = self._issues()
        says = (self._in_force(), tuple(issue.name for issue in found))
        if says == self._told:
            return
        report = DeviceReport(
            capabilities=self.capabilities,
            issues=tuple(issue.text for issue in found),
            sequence=says[0],
            boot=capability.boot_id(),
        )
        self.outbox.put([(self.clock.now(), report)])
        self._told = says

    def _in_force(self) -> int:
        """Sequence of the newest assignment that nothing under way here goes against."""
        assignment = self.follower.assignment
        if assignment is None:
            return 0
        wanted = {(spec.name, spec.bundle.digest) for spec in assignment.workloads}
        under_way = {
            (record.name, record.attempt.spec.bundle.digest) for record in self.records.all() if record.attempt
        }
        before = self._told[0] if self._told else 0
        return assignment.sequence if under_way <= wanted else before

    def write_status(self, *, running: bool = True) -> None:
        self._shown = self.workloads()
        assignment = self.follower.assignment
        write_status(
            self.files,
            self.layout,
            Status(
                pid=os.getpid(),
                device_id=self.device.device_id,
                name=self.device.name,
                hub=self.device.hub,
                at=self.clock.now(),
                capabilities=self.capabilities,
                workloads=self._shown,
                issues=tuple(issue.text for issue in self._issues()),
                assignment_sequence=assignment.sequence if assignment else 0,
                hub_reachable=self.follower.reached,
                outbox=len(self.outbox),
                rss_mib=memory.rss_mib(),
                running=running,
                address=self.supervisor.address,
                shared_memory=self.shared_memory,
            ),
        )

    def workloads(self) -> tuple[WorkloadStatus, ...]:
        return tuple(self._workload_status(record) for record in self.records.all())

    def _workload_status(self, record: WorkloadRecord) -> WorkloadStatus:
        running = self.supervisor.serving(record.name)
        release, attempt = record.committed, record.attempt
        refs = [each for each in (release and release.ref, attempt and attempt.spec.bundle) if each]
        shown = next((ref for ref in refs if ref.digest == running), None)
        variant = attempt.variant if attempt and attempt.spec.bundle.digest == running else ""
        doors = self.supervisor.doors(record.name)
        return WorkloadStatus(
            name=record.name,
            state=_state_word(record, running),
            bundle=shown.name if shown else "",
            digest=running,
            variant=variant or (release.variant if release and running else ""),
            committed=release.ref.name if release else "",
            attempt=f"{attempt.spec.bundle.name} {attempt.phase}" if attempt else "",
            url=f"http://{_host(self.host)}:{record.port}" if record.port and running else "",
            unix=doors.unix_path if doors and running else "",
            limits=self.supervisor.limits(record.name),
            problem=self.updater.problems.get(record.name, "")
            or self.supervisor.problem(record.name)
            or (doors.problem if doors else ""),
            refused=f"{record.refusal.reason}: {record.refusal.detail}" if record.refusal else "",
        )


def _state_word(record: WorkloadRecord, running: str) -> str:
    attempt = record.attempt
    if attempt is not None:
        if attempt.undoing:
            return "undoing"
        return _WATCHED.get(attempt.phase, "updating")
    if record.committed is None:
        return "idle"
    return "serving" if running else "down"


def _host(listen_host: str) -> str:
    """An address a client on this machine can use."""
    if listen_host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{listen_host}]" if ":" in listen_host else listen_host
