# SPDX-License-Identifier: Apache-2.0
"""What the hub needs from a database. tests/contracts/store holds every implementation to these words.

Rules for all methods
- each is one transaction: when it returned, what it wrote survives the death of the hub; when it raised, nothing was written;
- no method reads a clock: times come in as seconds since the epoch;
- a `note` given becomes an audit record of the same transaction, and is marked as written once that is committed;
- lists are ordered by the key named, start behind `after`, and hold at most `limit` items;
- NotFound for a missing subject, Conflict for one that is already there, StaleVersion when someone else was faster
  (read again, decide again), DatabaseUnavailable when the database does not answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from skerry.hub.domain.access import AuditRecord, Lease, Note, User
from skerry.hub.domain.catalogue import BundleRecord, CatalogueFile
from skerry.hub.domain.devices import (
    Desired,
    DesiredWorkload,
    Device,
    EnrolmentTokenRecord,
    Fleet,
    LastWords,
    NewDevice,
    Standing,
    StoredAssignment,
)
from skerry.hub.domain.rollouts import RolloutRecord, RolloutState, StageRecord
from skerry.hub.rollout.changes import NewEvent, RolloutChanges
from skerry.wire.v1.operator import AuditEntry, RolloutEvent, RolloutStatus, StoredResult
from skerry.wire.v1.report import HistoryEntry, Report


class DeviceStore(Protocol):
    async def add_enrolment_token(self, token: EnrolmentTokenRecord, *, note: Note | None = None) -> None:
        """Conflict when the hash is known."""

    async def enrolment_token(self, token_hash: bytes) -> EnrolmentTokenRecord | None: ...

    async def enrol(self, device: NewDevice, *, token_hash: bytes, now: float, note: Note | None = None) -> Device:
        """Use up the token and create the device, both or neither.

        The token's labels win over the device's. EnrolmentRefused when the token is unknown, used or expired at `now`
        (two enrolments racing for one token: exactly one wins); Conflict when the device id is taken.
        """

    async def device(self, device_id: str, *, deleted: bool = False) -> Device:
        """NotFound for an unknown device; also for a deleted one unless `deleted`."""

    async def devices_by_id(self, device_ids: Collection[str]) -> dict[str, Device]:
        """Those of the ids (at most 500) that are devices, without deleted ones; in one read."""

    async def devices(
        self, *, selector: Mapping[str, str] | None = None, limit: int = 100, after: str = "", name: str = ""
    ) -> tuple[Device, ...]:
        """By id, without deleted ones; `name` keeps only devices of exactly that name."""

    async def count_devices(self, *, selector: Mapping[str, str] | None = None, seen_since: float | None = None) -> int:
        """Devices neither deleted nor revoked; `seen_since` counts only those seen at or after it."""

    async def device_ids(self, *, selector: Mapping[str, str]) -> frozenset[str]:
        """Every device the selector matches, without deleted and revoked ones."""

    async def patch_labels(
        self, device_id: str, labels: Mapping[str, str | None], *, note: Note | None = None
    ) -> Device:
        """None removes a label. Others stay."""

    async def touch(self, seen: Mapping[str, float]) -> None:
        """Set `last_seen` of many devices; never back in time; unknown ids are ignored."""

    async def revoke(self, device_id: str, *, now: float, note: Note | None = None) -> Device:
        """Idempotent: the first time counts. Wakes the device's long-polls."""

    async def delete_device(self, device_id: str, *, now: float, note: Note | None = None) -> None:
        """Out of every list, fleet and rollout to come; history, reports and results stay readable. Idempotent."""

    async def put_fleet(self, fleet: Fleet, *, note: Note | None = None) -> None:
        """Create or replace."""

    async def fleet(self, name: str) -> Fleet: ...

    async def fleets(self) -> tuple[Fleet, ...]:
        """All, by name."""


class AssignmentStore(Protocol):
    async def desired(self, device_id: str) -> Desired:
        """What the device shall run, and the version of that, read together."""

    async def set_desired(self, device_id: str, workload: str, target: DesiredWorkload | None) -> int:
        """Set or (None) remove one workload; returns the device's new desired version and wakes its long-polls.

        Outside rollouts only: a rollout changes desired workloads through `apply_rollout`.
        """

    async def standings(self, device_ids: Collection[str]) -> dict[str, Standing]:
        """Of those ids (at most 500) that are devices, read together; without deleted ones."""

    async def put_assignments(self, issued: Collection[tuple[StoredAssignment, int]]) -> frozenset[str]:
        """Store the next assignment of several devices (at most one of each), each with the sequence it follows.

        Returns the devices whose last sequence still was that; for the others nothing is stored, as someone else issued
        one meanwhile. Old ones are dropped once a device cannot hold them any more (16 are kept).
        """

    async def wait_for_change(self, device_id: str, *, seen_version: int, timeout: float) -> int:  # noqa: ASYNC109 - an upper bound, not a cancellation
        """The device's desired version, as soon as it differs from `seen_version`, it is revoked, or after `timeout` seconds."""


class ReportStore(Protocol):
    async def add_reports(
        self,
        device_id: str,
        reports: Sequence[Report],
        *,
        received: float,
        outbox: str = "",
        oldest: int = 0,
        rejected: Mapping[int, str] | None = None,
    ) -> int:
        """Store the reports that follow on what is there, in one transaction with everything derived from them.

        Returns the highest sequence of this outbox up to which all reports are stored or lost. Sequences already stored are
        ignored; those behind a gap are neither stored nor acknowledged, unless the gap lies before `oldest`: then what was
        in it is lost, counted in the device's issues and remarked on in the audit log, and so is an outbox that follows
        another one. A device that holds an assignment this database knows nothing of (it was put back from a backup) gets
        a higher desired version, so that it is issued another; that too is remarked on. Derived: workload status, latest figures, results
        (a repeated event_id is ignored), history (only n = last + 1 with a fitting `previous`; anything else is left
        out and noted in the device's issues), capabilities, issues and the assignment in force. History reports whose
        sequence is in `rejected` (sequence -> what is wrong with hash or signature) are kept as reports, stay out of the
        history, and the words given are noted in the device's issues and in the audit log.
        """

    async def reports(self, device_id: str, *, limit: int = 100, after: int = 0) -> tuple[tuple[int, Report], ...]:
        """In the order they were stored, with the store's own number: the `after` of the next call."""

    async def history(self, device_id: str, *, limit: int = 1000, after: int = 0) -> tuple[HistoryEntry, ...]:
        """By n; also of deleted devices."""

    async def results(
        self, device_id: str, *, limit: int = 100, after: int = 0
    ) -> tuple[tuple[int, StoredResult], ...]:
        """By the store's own row number, given with each result: the `after` of the next call."""

    async def count_results(self) -> int: ...

    async def last_words(self, device_ids: Collection[str]) -> dict[str, LastWords]:
        """Of each of the ids (at most 1000) what it last said of its workloads (by name), and the latest figures per
        workload and digest; read together.
        """


class RolloutStore(Protocol):
    async def rollout_epoch(self, workload: str) -> int:
        """Number of rollouts ever created for the workload."""

    async def create_rollout(
        self,
        rollout: RolloutRecord,
        stages: Sequence[StageRecord],
        events: Sequence[NewEvent],
        *,
        epoch: int,
        note: Note | None = None,
    ) -> None:
        """StaleVersion when `rollout_epoch` moved on since the overlap was judged; Conflict when the id is taken."""

    async def rollout(self, rollout_id: str) -> RolloutRecord: ...

    async def rollouts(
        self, *, statuses: frozenset[RolloutStatus] | None = None, workload: str = "", limit: int = 100, after: str = ""
    ) -> tuple[RolloutRecord, ...]:
        """Newest first (by creation, then id); `after` is the id of the last one seen."""

    async def rollouts_to_plan(self) -> tuple[str, ...]:
        """Ids the controller must look at, oldest first.

        Active ones; undone ones with members still on their way back; done ones with a committed member that has since
        reported a failure, or a member failed by the clock that has since reported how it ended.
        """

    async def rollout_state(self, rollout_id: str) -> RolloutState:
        """One consistent picture. `fleet` is filled only when the rollout runs and no stage is under way."""

    async def rollout_devices(self, rollout_id: str) -> frozenset[str]:
        """Ids it holds now: its members, and while it is active every device its selector matches."""

    async def apply_rollout(self, changes: RolloutChanges, *, note: Note | None = None) -> None:
        """Write everything in `changes`, or nothing and StaleVersion: when the stored version is not
        `changes.rollout.version - 1`, or a desired workload belongs to someone else than `expected`.

        A member whose desired workload is changed gets the device's new `desired_version`. Wakes those devices.
        """

    async def rollout_events(self, rollout_id: str, *, limit: int = 1000, after: int = 0) -> tuple[RolloutEvent, ...]:
        """By n, which is contiguous from 1 per rollout."""


class CatalogueStore(Protocol):
    async def put_bundle(self, bundle: BundleRecord) -> None:
        """Idempotent for the same digest. Conflict when line/model:version exists with another digest."""

    async def bundle(self, digest: str) -> BundleRecord: ...

    async def find_bundle(self, *, model: str, version: str, line: str = "") -> BundleRecord:
        """NotFound; Conflict when no `line` is given and several lines hold it."""

    async def bundles(self, *, line: str = "", model: str = "") -> tuple[BundleRecord, ...]:
        """By line, model, release_seq."""

    async def quarantine(self, digest: str, *, reason: str, now: float) -> None:
        """Idempotent: the first reason counts. An unknown digest is ignored."""

    async def put_catalogue_files(
        self, files: Sequence[CatalogueFile], *, expect: Mapping[str, int], note: Note | None = None
    ) -> None:
        """Add versions, all or none. StaleVersion when the newest version of a name in `expect` is another (0 = none)
        or a version is already there with other bytes.
        """

    async def catalogue_file(self, name: str, *, version: int | None = None) -> CatalogueFile | None:
        """That version, or the newest."""

    async def catalogue_names(self) -> tuple[str, ...]:
        """All names, sorted."""


class AccessStore(Protocol):
    async def add_user(self, user: User, *, replace: bool = False, note: Note | None = None) -> None:
        """Conflict when the name is taken; with `replace`, its role and token become these."""

    async def user_by_token(self, token_hash: bytes) -> User | None: ...

    async def users(self) -> tuple[User, ...]:
        """By name."""

    async def delete_user(self, name: str, *, note: Note | None = None) -> None:
        """Conflict for the last administrator, without whom nobody could be let in again."""

    async def add_audit(self, record: AuditRecord) -> AuditEntry:
        """Numbered without gaps from 1. Never changed or removed afterwards."""

    async def audit(self, *, limit: int = 100, after: int = 0) -> tuple[AuditEntry, ...]:
        """By n."""

    async def use_once(self, name: str, *, until: float, now: float) -> bool:
        """True for the first caller of a name, on whichever replica; False for later ones while `until` is not past.

        Names whose `until` lies before `now` are forgotten on the way. (Used against replayed client assertions.)
        """

    async def setting(self, name: str) -> bytes | None: ...

    async def put_setting(self, name: str, value: bytes) -> None:
        """Create or replace."""

    async def settle(self, name: str, value: bytes) -> bytes:
        """Store unless it is there; returns what is there. Two replicas on first start agree on one value."""


class LeaseStore(Protocol):
    async def acquire_lease(self, name: str, holder: str, *, seconds: float, now: float) -> Lease | None:
        """Take it, or renew it when `holder` has it already, for at most an hour. None while another holds it at `now`."""

    async def release_lease(self, name: str, holder: str) -> None:
        """Only when it is the holder's; else nothing happens."""


class Store(DeviceStore, AssignmentStore, ReportStore, RolloutStore, CatalogueStore, AccessStore, LeaseStore, Protocol):
    async def ping(self) -> None:
        """DatabaseUnavailable when the database does not answer."""

    async def close(self) -> None:
        """Give back connections and stop listening. Waiting callers are woken."""
