# SPDX-License-Identifier: Apache-2.0
"""What an agent keeps, and where. Everything is below one folder.

    device.json            who this device is and which hub it listens to; written once, by join
    factory-root.json      TUF root the device was born with
    identity/key.pem       private key, made here, mode 0600
    catalogue/             TUF metadata                         (written by skerry.trust)
    floors.json            release and time floors              (written by skerry.trust)
    assignment.dsse        last accepted assignment, as signed
    workloads/NAME.json    one WorkloadRecord per workload; NAME.json.damaged: one that could not be read
    blobs/sha256/HEX       proven blobs;  partial/HEX: downloads not finished
    bundles/HEX/           unpacked bundles, by manifest digest
    logs/NAME.log          what runners wrote to stderr
    outbox.db              outbox and history (SQLite); outbox.db.damaged: one that could not be read
    status.json            for people and tools; nothing reads it back
    lock                   held while an agent lives
    ballast                room that is given up when the disk is full, so that an agent can start

A record is replaced whole, through effects.Files.write. `pending` carries what must also reach history and outbox: it is
written with the record and emitted after, so a crash in between loses nothing and repeats nothing (`history.emit`).
"""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from skerry.effects import Files, Spool
from skerry.errors import DeviceError, NotEnrolled, StateDamaged
from skerry.wire.v1.device import BundleRef, Limits, WorkloadSpec
from skerry.wire.v1.report import WorkloadReport

T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises for bytes from elsewhere: its DecodeError and a UnicodeDecodeError are ValueErrors."""


class Layout:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.device = root / "device.json"
        self.factory_root = root / "factory-root.json"
        self.key = root / "identity" / "key.pem"
        self.catalogue = root / "catalogue"
        self.floors = root / "floors.json"
        self.assignment = root / "assignment.dsse"
        self.workloads = root / "workloads"
        self.blobs = root / "blobs"
        self.partial = root / "partial"
        self.bundles = root / "bundles"
        self.cache = root / "cache"
        self.logs = root / "logs"
        self.outbox = root / "outbox.db"
        self.status = root / "status.json"
        self.lock = root / "lock"
        self.ballast = root / "ballast"


class Device(Struct, frozen=True, kw_only=True):
    device_id: str
    name: str
    hub: str
    audience: str
    poll_seconds: float = 30.0
    ca_file: str = ""
    joined: float = 0.0


class Phase(StrEnum):
    """How far an attempt has got; written before the step of the same name is applied."""

    FETCH = "fetch"
    UNPACK = "unpack"
    SELF_TEST = "self-test"
    TRIAL = "trial"  # only where the assignment asks for one
    SWITCH = "switch"
    SOAK = "soak"


class Release(Struct, frozen=True, kw_only=True):
    """A bundle that was committed here."""

    ref: BundleRef
    variant: str
    committed: float
    rollout: str = ""
    floor_seq: int = 0
    limits: Limits = Limits()


class Undoing(Struct, frozen=True, kw_only=True):
    """Why an attempt is being taken back; `remember` = the digest failed, and is refused for good."""

    reason: str
    detail: str = ""
    remember: bool = True
    rest: bool = False  # nothing was learned of the digest; the hub may ask again, under another assignment


class Attempt(Struct, frozen=True, kw_only=True):
    spec: WorkloadSpec
    sequence: int  # of the assignment that asked for it
    phase: Phase
    started: float
    variant: str = ""
    floor_seq: int = 0
    boots: tuple[str, ...] = ()  # boots of the machine during which this digest was being activated
    undoing: Undoing | None = None
    trials: int = 0  # begun


class Failure(Struct, frozen=True, kw_only=True):
    digest: str
    reason: str
    detail: str
    at: float


class Refusal(Struct, frozen=True, kw_only=True):
    """Trust or fit said no to `digest` under assignment `sequence`; the same question is not asked twice."""

    digest: str
    sequence: int
    reason: str
    detail: str


class Pending(Struct, frozen=True, kw_only=True):
    """Something that happened with the record's revision, on its way to history and outbox."""

    kind: str
    at: float
    report: WorkloadReport
    fields: dict[str, str | int | float | bool] = {}


class WorkloadRecord(Struct, frozen=True, kw_only=True):
    name: str
    revision: int = 0
    port: int = 0
    committed: Release | None = None
    previous: Release | None = None
    attempt: Attempt | None = None
    failed: tuple[Failure, ...] = ()
    refusal: Refusal | None = None
    confirmed: int = 0  # highest assignment sequence under which COMMITTED was reported
    pending: tuple[Pending, ...] = ()

    def failure(self, digest: str) -> Failure | None:
        return next((failure for failure in self.failed if failure.digest == digest), None)

    def digests(self) -> frozenset[str]:
        """Bundles this record may still want on disk."""
        refs = [release.ref for release in (self.committed, self.previous) if release]
        if self.attempt:
            refs.append(self.attempt.spec.bundle)
        return frozenset(ref.digest for ref in refs)


def load_device(files: Files, layout: Layout) -> Device:
    data = files.read(layout.device)
    if data is None:
        raise NotEnrolled(state=str(layout.root))
    return decode(layout.device, data, Device)


def save_device(files: Files, layout: Layout, device: Device) -> None:
    files.write(layout.device, msgspec.json.format(msgspec.json.encode(device), indent=1) + b"\n")


class RecordFiles(Files, Spool, Protocol):
    """Both halves of a disk."""


class Records:
    """The workload records, in memory and on disk. One writer: the update thread.

    A record that cannot be read stands in nobody's way: it is set aside as `NAME.json.damaged`, and named in `damaged`.
    """

    def __init__(self, files: RecordFiles, layout: Layout) -> None:
        """Reads every record. Raises StorageError when not even their folder can be read."""
        self._files = files
        self._folder = layout.workloads
        self.damaged: dict[str, str] = {}  # name -> what is wrong with it
        self._records: dict[str, WorkloadRecord] = {}
        for file in files.names(self._folder):
            if file.endswith(".json") and not file.startswith("."):
                self._load(file.removesuffix(".json"))

    def _load(self, name: str) -> None:
        path = self._path(name)
        try:
            data = self._files.read(path)
            record = WorkloadRecord(name=name) if data is None else decode(path, data, WorkloadRecord)
            if record.name != name:
                raise StateDamaged(path=str(path), problem=f"it is the record of {record.name!r}")
            self._records[name] = record
        except DeviceError as error:
            self.damaged[name] = str(error)
            with contextlib.suppress(DeviceError):
                self._files.publish(path, path.with_name(f"{path.name}.damaged"))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def get(self, name: str) -> WorkloadRecord:
        return self._records.get(name) or WorkloadRecord(name=name)

    def all(self) -> tuple[WorkloadRecord, ...]:
        return tuple(self._records.values())

    def put(self, record: WorkloadRecord) -> WorkloadRecord:
        """Durable when it returns; the revision grows by one. Raises StorageError with the old record still in force."""
        record = msgspec.structs.replace(record, revision=record.revision + 1)
        self._files.write(self._path(record.name), msgspec.json.encode(record))
        self._records = {**self._records, record.name: record}
        return record


def decode(path: Path, data: bytes, kind: type[T]) -> T:
    """A state file. Raises StateDamaged."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise StateDamaged(path=str(path), problem=str(error)) from error
