# SPDX-License-Identifier: Apache-2.0
"""Opening what an agent keeps, and mending what can be mended: damaged state takes no model out of service.

What cannot be read is set aside under another name, never deleted: it is evidence.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from skerry.agent.history import History
from skerry.agent.identity import Identity
from skerry.agent.outbox import Outbox
from skerry.agent.recovery import recovered
from skerry.agent.state import Layout, RecordFiles, Records
from skerry.effects import Clock
from skerry.errors import DeviceError, StateDamaged, StorageError
from skerry.trust.chain import Broken, Value

_log = logging.getLogger(__name__)

BALLAST = 2 * 1024 * 1024
ROOM_FOR_BALLAST = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """`broken`: what is wrong with the history on this device, empty when nothing is."""

    outbox: Outbox
    history: History
    broken: str = ""


def open_ledger(files: RecordFiles, layout: Layout, identity: Identity, *, device_id: str, now: float) -> Ledger:
    """Outbox and history; a database that cannot be read makes way for a new one. Raises StorageError."""
    damage = ""
    try:
        opened = _open(files, layout, identity, device_id)
    except StateDamaged as error:
        damage = str(error)
        _set_aside(files, layout)
        opened = _open(files, layout, identity, device_id)
    if not damage and files.names(layout.workloads) and not opened.history.workloads():
        damage = f"{layout.outbox} is gone, and this device has a past"
    if not damage:
        return opened
    _log.error("history begun anew problem=%s", damage)
    with contextlib.suppress(StorageError):  # a full disk: the issue says it too
        opened.history.append("history-begun-anew", at=now, fields={"problem": damage})
    return Ledger(outbox=opened.outbox, history=opened.history, broken=f"it was begun anew: {damage}")


def recover_records(records: Records, ledger: Ledger, clock: Clock) -> None:
    """Records that are gone or damaged, from history, while its chain holds."""
    for name, problem in records.damaged.items():
        _log.error("record set aside workload=%s problem=%s", name, problem)
    known = {record.name for record in records.all()}
    lost = (ledger.history.workloads() | records.damaged.keys()) - known
    for name in sorted(lost):
        record = None if ledger.broken else recovered(ledger.history.entries(), name)
        if record is not None:
            records.put(record)
        elif name not in records.damaged:
            continue  # nothing was committed under that name
        fields: dict[str, Value] = {"workload": name, "problem": records.damaged.get(name, "it is gone")}
        kind = "record-lost" if record is None else "record-recovered"
        _log.error("%s workload=%s", kind, name)
        ledger.history.append(kind, at=clock.now(), fields=fields)


def sweep(files: RecordFiles, layout: Layout) -> None:
    """Remove what writes that a crash cut short have left."""
    for folder in (layout.root, layout.workloads, layout.key.parent):
        for name in files.names(folder):
            if name.startswith(".") and name.endswith(".new"):
                with contextlib.suppress(DeviceError):
                    files.remove(folder / name)


def _set_aside(files: RecordFiles, layout: Layout) -> None:
    for suffix in ("", "-wal", "-shm"):
        part = layout.outbox.with_name(layout.outbox.name + suffix)
        if files.size(part) is not None:
            files.publish(part, layout.outbox.with_name(f"{layout.outbox.name}.damaged{suffix}"))


def _open(files: RecordFiles, layout: Layout, identity: Identity, device_id: str) -> Ledger:
    outbox = _open_outbox(files, layout)
    history = History(outbox, device_id=device_id, private_key=identity.private_key)
    try:
        verified = history.verify(identity.public_key)
    except StateDamaged:
        outbox.close()
        raise
    broken = f"entry {verified.n}: {verified.problem}" if isinstance(verified, Broken) else ""
    return Ledger(outbox=outbox, history=history, broken=broken)


def _open_outbox(files: RecordFiles, layout: Layout) -> Outbox:
    """On a full disk the database cannot even be opened: the ballast is kept for that moment."""
    try:
        outbox = Outbox(layout.outbox)
    except StorageError:
        files.remove(layout.ballast)
        outbox = Outbox(layout.outbox)
    with contextlib.suppress(StorageError):
        if files.size(layout.ballast) is None and files.free(layout.root) > ROOM_FOR_BALLAST:
            files.write(layout.ballast, bytes(BALLAST))
    return outbox
