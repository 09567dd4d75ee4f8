# SPDX-License-Identifier: Apache-2.0
"""status.json: what an agent shows of itself to people and tools on the same machine."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from skerry.agent import lock
from skerry.agent.state import Layout, decode, load_device
from skerry.effects import Files
from skerry.wire.v1.device import Capabilities


class WorkloadStatus(Struct, frozen=True, kw_only=True):
    name: str
    state: str  # serving | trying | soaking | updating | undoing | down | idle
    bundle: str = ""
    digest: str = ""
    variant: str = ""
    committed: str = ""
    attempt: str = ""
    url: str = ""
    unix: str = ""  # path of its unix socket
    limits: str = ""  # what its runner is kept to, and by which mechanism
    problem: str = ""
    refused: str = ""


class Status(Struct, frozen=True, kw_only=True):
    pid: int
    device_id: str
    name: str
    hub: str
    at: float
    capabilities: Capabilities | None = None  # measured when it starts
    workloads: tuple[WorkloadStatus, ...] = ()
    issues: tuple[str, ...] = ()
    assignment_sequence: int = 0
    hub_reachable: bool | None = None
    outbox: int = 0
    rss_mib: float = 0.0
    running: bool = True
    address: str = ""  # HOST:PORT of the whole box
    shared_memory: bool = False  # clients may name regions of the system's shared memory


def write_status(files: Files, layout: Layout, status: Status) -> None:
    files.write(layout.status, msgspec.json.format(msgspec.json.encode(status), indent=1) + b"\n")


def read_status(files: Files, layout: Layout) -> Status:
    """What the agent last said; `running` is whether one lives now. Raises NotEnrolled, StateDamaged."""
    data = files.read(layout.status)
    if data is None:  # joined, and never run
        device = load_device(files, layout)
        return Status(
            pid=0, device_id=device.device_id, name=device.name, hub=device.hub, at=device.joined, running=False
        )
    status = decode(layout.status, data, Status)
    return msgspec.structs.replace(status, running=lock.held(layout.lock))
