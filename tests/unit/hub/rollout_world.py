# SPDX-License-Identifier: Apache-2.0
"""A fleet on a virtual clock around the real planner: devices that succeed, fail, fall silent, are slow or fall back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from msgspec.structs import replace

from skerry.hub.domain import (
    ACTIVE,
    FleetDevice,
    LatestFigures,
    Member,
    MemberState,
    Outcome,
    RolloutRecord,
    RolloutState,
    Seen,
    StageRecord,
    WorkloadStatus,
    matches,
)
from skerry.hub.rollout.changes import RolloutChanges, changes_of
from skerry.hub.rollout.draft import NewEvent
from skerry.hub.rollout.planner import plan, stage_limit, stages_of
from skerry.hub.rollout.verbs import Verb, command
from skerry.wire.v1.device import BundleRef, target_path
from skerry.wire.v1.operator import RolloutSpec, RolloutStatus, StageStatus
from skerry.wire.v1.report import FiguresReport, WorkloadState

START = 1_800_000_000.0


def bundle(version: int, model: str = "digits") -> BundleRef:
    return BundleRef(
        line="demo",
        model=model,
        version=f"{version}.0",
        digest=f"sha256:{version:064x}",
        release_seq=version,
        target=target_path("demo", model, f"{version}.0"),
    )


class Nature(StrEnum):
    GOOD = "good"
    FAILS = "fails"  # self-test or soak fails, the device undoes it itself
    REFUSES = "refuses"
    SILENT = "silent"  # gets the new version and is never heard of again (until `back_at`)
    DEAF = "deaf"  # offline all the time: never even hears of it (until `back_at`)


@dataclass(kw_only=True)
class SimDevice:
    id: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    nature: Nature = Nature.GOOD
    delay: float = 10.0
    latency: float = 5.0
    errors: int = 0
    back_at: float = float("inf")
    falls_back_at: float = float("inf")
    desired: BundleRef | None = None
    desired_rollout: str = ""
    desired_version: int = 0
    applied: int = 0  # in force on the device
    told: int = 0  # what the hub knows is in force
    running: str = ""
    working_on: tuple[str, float] | None = None  # digest, done at
    refused: set[str] = field(default_factory=set)
    asked_by: str = ""  # rollout of the assignment in force
    outbox: list[WorkloadStatus | int] = field(default_factory=list)
    status: WorkloadStatus | None = None
    figures: dict[str, LatestFigures] = field(default_factory=dict)
    revoked: bool = False

    def start_on(self, first: BundleRef, now: float) -> None:
        self.desired, self.desired_version, self.applied, self.told = first, 1, 1, 1
        self.running = first.digest
        self.status = WorkloadStatus(
            device_id=self.id,
            workload="digits",
            digest=first.digest,
            state=WorkloadState.COMMITTED,
            running=first.digest,
            received=now,
        )

    def online(self, now: float) -> bool:
        if self.nature is Nature.DEAF:
            return now >= self.back_at
        silent = self.nature is Nature.SILENT and (self.desired is None or self.applied > 1)
        return not silent or now >= self.back_at

    def act(self, now: float) -> None:
        if self.revoked or (self.nature is Nature.DEAF and now < self.back_at):
            return
        self._take_assignment(now)
        self._work(now)
        if self.online(now):
            self._flush(now)
            self._measure(now)

    def _take_assignment(self, now: float) -> None:
        reachable = self.nature is not Nature.SILENT or now >= self.back_at or self.applied <= 1
        if reachable and self.applied != self.desired_version:
            self.applied, self.asked_by = self.desired_version, self.desired_rollout
            self.outbox.append(self.applied)
            digest = self.desired.digest if self.desired else ""
            self.working_on = None
            if digest != self.running and digest not in self.refused:
                self.working_on = (digest, now + self.delay)

    def _work(self, now: float) -> None:
        if self.working_on is not None and now >= self.working_on[1]:
            digest, _ = self.working_on
            self.working_on = None
            self._finish(digest, now)
        new = self.desired is not None and self.desired.release_seq > 1
        if new and self.running == (self.desired.digest if self.desired else "") and now >= self.falls_back_at:
            self._break(self.running, WorkloadState.FELL_BACK, now)

    def _finish(self, digest: str, now: float) -> None:
        new = self.desired is not None and self.desired.release_seq > 1
        if new and self.nature is Nature.FAILS:
            self._break(digest, WorkloadState.UNDONE, now)
        elif new and self.nature is Nature.REFUSES:
            self._say(digest, WorkloadState.REFUSED, now)
        else:
            gone, self.running = self.running, digest
            self._say(digest or gone, WorkloadState.COMMITTED if digest else WorkloadState.REMOVED, now)

    def _break(self, digest: str, state: WorkloadState, now: float) -> None:
        self.refused.add(digest)
        self.running = f"sha256:{1:064x}"
        self._say(digest, state, now)

    def _say(self, digest: str, state: WorkloadState, now: float) -> None:
        said = WorkloadStatus(
            device_id=self.id,
            workload="digits",
            digest=digest,
            state=state,
            rollout=self.asked_by,
            running=self.running,
            at=now,
        )
        self.outbox.append(said)

    def _flush(self, now: float) -> None:
        """In order, as a real outbox: what ran is known before which assignment is in force."""
        for said in self.outbox:
            if isinstance(said, int):
                self.told = said
            else:
                self.status = replace(said, received=now)
        self.outbox.clear()

    def _measure(self, now: float) -> None:
        if self.running and self.status is not None:
            report = FiguresReport(
                workload="digits",
                digest=self.running,
                window_seconds=2.0,
                requests=100,
                errors=self.errors if self.running != f"sha256:{1:064x}" else 0,
                latency_p50_ms=1.0,
                latency_p95_ms=self.latency if self.running != f"sha256:{1:064x}" else 1.0,
                latency_p99_ms=50.0,
                rollout=self.desired_rollout,
            )
            self.figures[self.running] = LatestFigures(device_id=self.id, at=now, received=now, figures=report)


class World:
    """All devices run version 1 at the start; the rollout moves them to version 2."""

    def __init__(self, devices: list[SimDevice], spec: RolloutSpec) -> None:
        self.now = START
        self.devices = {device.id: device for device in devices}
        for device in devices:
            if device.desired is None:
                device.start_on(bundle(1), START - 1000.0)
        self.original = {device.id: device.desired for device in devices}
        self.rollout = RolloutRecord(
            id="r-1",
            spec=spec,
            selector=spec.selector,
            bundle=bundle(2),
            status=RolloutStatus.RUNNING,
            created=START,
            created_by="anna",
        )
        self.stages = {i: StageRecord(index=i, name=s.name) for i, s in enumerate(stages_of(spec.stages))}
        self.members: dict[str, Member] = {}
        self.events: list[NewEvent] = []
        self.quarantined = ""
        self.plans = 0

    def status(self) -> RolloutStatus:
        return self.rollout.status

    def state(self) -> RolloutState:
        under_way = any(s.status not in {StageStatus.WAITING, StageStatus.DONE} for s in self.stages.values())
        wanted = self.rollout.status is RolloutStatus.RUNNING and not under_way
        return RolloutState(
            rollout=self.rollout,
            stages=tuple(self.stages.values()),
            members=tuple(self.members.values()),
            seen={device_id: self._seen(self.devices[device_id]) for device_id in self.members},
            fleet=tuple(map(self._candidate, self._fleet())) if wanted else None,
        )

    def apply(self, changes: RolloutChanges) -> bool:
        """As the store does it: all or nothing, refused when the version or the owner of a workload moved on."""
        owners_ok = all(self.devices[c.device_id].desired_rollout == c.expected for c in changes.desired)
        if changes.rollout.version != self.rollout.version + 1 or not owners_ok:
            return False
        self.rollout = changes.rollout
        self.stages.update({stage.index: stage for stage in changes.stages})
        self.members.update({member.device_id: member for member in changes.members})
        for change in changes.desired:
            device = self.devices[change.device_id]
            device.desired, device.desired_rollout = change.bundle, change.rollout if change.bundle else ""
            device.desired_version += 1
            member = self.members[change.device_id]
            self.members[change.device_id] = replace(member, desired_version=device.desired_version)
        self.events.extend(changes.events)
        self.quarantined = self.quarantined or changes.quarantine
        self.check()
        return True

    def tick(self, *, limit: int = 1000) -> int:
        """Plan and apply until nothing is left to do; how many plans that took."""
        for n in range(limit):
            state = self.state()
            actions = plan(state, self.now).actions
            if not actions:
                return n
            self.plans += 1
            assert self.apply(changes_of(state, actions, self.now))
        raise AssertionError("the planner does not come to rest")

    def advance(self, seconds: float) -> None:
        for device in self.devices.values():
            device.act(self.now)
        self.now += seconds
        for device in self.devices.values():
            device.act(self.now)

    def run(self, *, seconds: float, step: float = 5.0) -> None:
        end = self.now + seconds
        while self.now < end and self.rollout.status in ACTIVE:
            self.tick()
            self.advance(step)
        self.tick()

    def say(self, verb: Verb) -> None:
        answer = command(self.state(), verb, actor="anna")
        state = self.state()
        assert self.apply(changes_of(state, answer.actions, self.now))  # type: ignore[union-attr]

    def in_state(self, *states: MemberState) -> set[str]:
        return {member.device_id for member in self.members.values() if member.state in states}

    def touched(self) -> set[str]:
        return {member.device_id for member in self.members.values() if member.assigned_at is not None}

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def check(self) -> None:
        """What must hold after every single write."""
        specs = stages_of(self.rollout.spec.stages)
        for stage in self.stages.values():
            members = [member for member in self.members.values() if member.stage == stage.index]
            assert len(members) <= stage_limit(specs[stage.index], stage.fleet)
            if stage.status is StageStatus.WAITING:
                assert not members
        for member in self.members.values():
            device = self.devices[member.device_id]
            if member.outcome is Outcome.COMMITTED:
                assert device.nature is Nature.GOOD or device.back_at <= self.now
            if member.assigned_at is None:
                assert device.desired_rollout != self.rollout.id
        running = [s.index for s in self.stages.values() if s.status in {StageStatus.RUNNING, StageStatus.SOAKING}]
        assert len(running) <= 1 or any(self.stages[i].waived for i in running)

    def _fleet(self) -> list[SimDevice]:
        return [d for d in self.devices.values() if not d.revoked and matches(self.rollout.selector, d.labels)]

    def _candidate(self, device: SimDevice) -> FleetDevice:
        return FleetDevice(device_id=device.id, name=device.name, labels=device.labels, desired=device.desired)

    def _seen(self, device: SimDevice) -> Seen:
        return Seen(
            status=device.status,
            figures=device.figures.get(self.rollout.bundle.digest),
            applied_version=device.told,
            desired=device.desired,
            desired_rollout=device.desired_rollout,
            revoked=device.revoked,
        )


def fleet(count: int, **fields: object) -> list[SimDevice]:
    return [SimDevice(id=f"d{n:04}", name=f"edge-{n:04}", **fields) for n in range(count)]  # type: ignore[arg-type]
