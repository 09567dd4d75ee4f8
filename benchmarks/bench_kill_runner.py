# SPDX-License-Identifier: Apache-2.0
"""Requests dropped or answered wrongly over 50 switches and 20 kills of runners under full load. Must be 0.

Real runners under the agent's supervisor, two workloads behind one address; clients on that address, on a workload's own port
and on its unix socket. A request that was in a killed runner gets one clear 503 (SKY-6011); while no runner is up for 1.5 s the
agent answers 503 in its stead (SKY-6012). Both are counted apart.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from acceptance.box_harness import TIMING, BoxAgent, free_address
from acceptance.kill_load import Load, Tally
from acceptance.runner_harness import write_bundle
from contracts.engine.models import affine, classifier

SWITCHES, KILLS = 50, 20


def measure(folder: Path, *, switches: int, kills: int, between: float = 0.5) -> Tally:
    """`between`: seconds of undisturbed load after each event."""
    x = np.ones((2, 4), np.float32)
    one = [
        write_bundle(folder / f"one{n}", m, {"x": x}, name="one", version=f"{n}.0.0")
        for n, m in enumerate((affine(), classifier()))
    ]
    two = write_bundle(folder / "two", affine(), {"x": x}, name="two")
    pause, total = threading.Event(), Tally()
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(
            BoxAgent(folder / "state", address=free_address(), timing=replace(TIMING, patience=1.5))
        )
        box.serve("first", one[0])
        box.serve("second", two)
        doors = box.doors("first")
        loads = [
            stack.enter_context(Load(box.address, "one,two", clients=4)),
            stack.enter_context(Load(f"127.0.0.1:{doors.port}", "one", clients=8)),
            stack.enter_context(Load(doors.unix_path, "one", clients=4)),
        ]
        for number in range(1, switches + 1):
            box.serve("first", one[number % 2])
            pause.wait(between / 5)
        for number in range(kills):
            workload = ("first", "second")[number % 2]
            before = box.pid(workload)
            os.kill(before, signal.SIGKILL)
            box.until("restart", lambda workload=workload, before=before: box.pid(workload) not in {0, before})
            pause.wait(between)
            box.forget_crashes(workload)
        tally = box.tally
    for load in loads:
        total.add(load.tally)
    print(
        "of the connections of killed runners: " + ", ".join(f"{kind} {count}" for kind, count in sorted(tally.items()))
    )
    return total


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="box-") as folder:
        total = measure(Path(folder), switches=SWITCHES, kills=KILLS)
    refused = ", ".join(f"{code} {count}" for code, count in sorted(total.refused.items())) or "none"
    print(f"asked {total.asked} over {SWITCHES} switches and {KILLS} kills; slowest answer {total.slowest:.2f} s")
    print(f"right {total.right}; one clear 503: {refused}; dropped {total.dropped}; wrong {total.wrong}")
    for problem in total.problems:
        print(f"  {problem}")
    return 1 if total.dropped or total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
