# SPDX-License-Identifier: Apache-2.0
"""Values every store test starts from."""

from __future__ import annotations

from skerry.hub.domain import (
    BundleRecord,
    Device,
    EnrolmentTokenRecord,
    NewDevice,
    RolloutRecord,
    StageRecord,
    StoredAssignment,
)
from skerry.hub.store.interface import Store
from skerry.wire.v1.device import BundleRef, Capabilities, target_path
from skerry.wire.v1.operator import RolloutSpec, RolloutStatus, StageSpec
from skerry.wire.v1.report import Body, HistoryEntry, HistoryReport, Report, ResultReport, WorkloadReport, WorkloadState

NOW = 1_800_000_000.0
CAPABILITIES = Capabilities(arch="x86_64", cpus=2, memory_mib=2048, runtimes={"onnxruntime": "1.22"})


def bundle(version: int = 1, *, model: str = "digits", line: str = "demo") -> BundleRef:
    return BundleRef(
        line=line,
        model=model,
        version=f"{version}.0",
        digest=f"sha256:{version:064x}",
        release_seq=version,
        target=target_path(line, model, f"{version}.0"),
    )


def bundle_record(version: int = 1, **fields: str) -> BundleRecord:
    return BundleRecord(ref=bundle(version, **fields), published=NOW, size=100, config=b"{}")


def token(name: str = "t", **fields: object) -> EnrolmentTokenRecord:
    base = {"token_hash": name.encode(), "labels": {}, "created": NOW, "created_by": "anna", "expires": NOW + 60}
    return EnrolmentTokenRecord(**{**base, **fields})  # type: ignore[arg-type]


def new_device(device_id: str, **fields: object) -> NewDevice:
    base = {
        "id": device_id,
        "name": f"edge-{device_id}",
        "labels": {},
        "public_key": b"k" * 32,
        "capabilities": CAPABILITIES,
        "enrolled": NOW,
    }
    return NewDevice(**{**base, **fields})  # type: ignore[arg-type]


async def enrolled(store: Store, *device_ids: str, **labels: str) -> list[Device]:
    devices = []
    for device_id in device_ids:
        await store.add_enrolment_token(token(f"token of {device_id}", labels=labels))
        hashed = f"token of {device_id}".encode()
        devices.append(await store.enrol(new_device(device_id), token_hash=hashed, now=NOW))
    return devices


def assignment(device_id: str, sequence: int, *, desired_version: int = 0) -> StoredAssignment:
    return StoredAssignment(
        device_id=device_id,
        sequence=sequence,
        desired_version=desired_version,
        envelope=f"envelope {sequence}".encode(),
        issued=NOW,
        expires=NOW + 3600,
    )


async def put(store: Store, given: StoredAssignment, *, previous: int = 0) -> bool:
    return given.device_id in await store.put_assignments([(given, previous)])


async def last(store: Store, device_id: str) -> StoredAssignment | None:
    return (await store.standings([device_id]))[device_id].last


def report(seq: int, body: Body, *, at: float = NOW) -> Report:
    return Report(seq=seq, at=at, body=body)


def workload(state: WorkloadState, *, version: int = 2, **fields: object) -> WorkloadReport:
    base = {"workload": "digits", "digest": bundle(version).digest, "state": state}
    return WorkloadReport(**{**base, **fields})  # type: ignore[arg-type]


def result(event_id: str, value: int = 7) -> ResultReport:
    return ResultReport(
        workload="digits", event_id=event_id, at=NOW, bundle="digits:1.0", outputs={"label": [value], "score": [0.5]}
    )


def history(n: int, *, previous: str | None = None) -> HistoryReport:
    entry = HistoryEntry(
        n=n,
        at=NOW + n + 0.1,
        kind="committed",
        fields={"bundle": "digits:1.0", "n": n, "share": 1.0, "ok": True},
        previous=(f"h{n - 1}" if n > 1 else "") if previous is None else previous,
        hash=f"h{n}",
        signature=b"\x00\xff",
    )
    return HistoryReport(entry=entry)


def rollout(rollout_id: str = "r-1", **fields: object) -> RolloutRecord:
    spec = RolloutSpec(
        workload="digits",
        bundle="digits:2.0",
        stages=(StageSpec(name="one", count=1), StageSpec(name="rest")),
        deadline_seconds=600.0,
    )
    base = {
        "id": rollout_id,
        "spec": spec,
        "selector": {},
        "bundle": bundle(2),
        "status": RolloutStatus.RUNNING,
        "created": NOW,
        "created_by": "anna",
    }
    return RolloutRecord(**{**base, **fields})  # type: ignore[arg-type]


def stages(record: RolloutRecord) -> list[StageRecord]:
    return [StageRecord(index=i, name=stage.name) for i, stage in enumerate(record.spec.stages)]
