# SPDX-License-Identifier: Apache-2.0
"""All workloads of the supervisor, and what is asked of all of them at once."""

from __future__ import annotations

import threading

from skerry.agent.supervise.box import route
from skerry.agent.supervise.orphans import Orphan
from skerry.agent.supervise.slot import Slot
from skerry.wire.v1.runner import Routes


class Slots:
    """`lock` is held by whoever changes a slot; the questions here take it themselves. Iterating is over a copy."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._slots: dict[str, Slot] = {}

    def __getitem__(self, workload: str) -> Slot:
        """Made when it is asked for the first time."""
        with self.lock:
            return self._slots.setdefault(workload, Slot(workload=workload))

    def all(self) -> list[Slot]:
        with self.lock:
            return list(self._slots.values())

    def held(self) -> dict[str, float]:
        """Workload -> MiB of memory its runners were last measured to hold, but for what is kept warm."""
        with self.lock:
            return {name: mib for name, slot in self._slots.items() if (mib := slot.resident_mib())}

    def warm(self) -> dict[str, float]:
        """Workload -> MiB of its version before, where that is kept warm."""
        with self.lock:
            return {name: slot.warm.resident_mib for name, slot in self._slots.items() if slot.warm is not None}

    def routes(self) -> Routes:
        with self.lock:
            slots = sorted(self._slots.values(), key=lambda slot: slot.workload)
            found = [
                route(slot.wanted, slot.doors, up=not slot.given_up) for slot in slots if slot.wanted and slot.doors
            ]
            return Routes(routes=tuple(found))

    def next_again(self, now: float) -> float:
        """Seconds until a runner is to be started again; 60 when none is."""
        with self.lock:
            waits = [slot.again[0] - now for slot in self._slots.values() if slot.again]
        return max(0.0, min(waits, default=60.0))

    def take_strays(self, keep: frozenset[str]) -> list[Orphan]:
        """Orphans of workloads that exist no more, for whoever ends them."""
        with self.lock:
            strays = [slot for slot in self._slots.values() if slot.workload not in keep]
            taken = [orphan for slot in strays for orphan in slot.orphans]
            for slot in strays:
                slot.orphans = []
            return taken
