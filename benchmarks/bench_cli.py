# SPDX-License-Identifier: Apache-2.0
"""CPU of `skerry --help` (user + system, milliseconds), against an empty interpreter and against importing click."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 15
BUDGET_MS = 60
SKERRY = str(Path(sys.executable).with_name("skerry"))
COMMANDS = {
    "python -c pass (floor)": [sys.executable, "-c", "pass"],
    "python -c 'import click' (peer's floor)": [sys.executable, "-c", "import click"],
    "skerry --help": [SKERRY, "--help"],
    "skerry get --help": [SKERRY, "get", "--help"],
}


def cpu_ms(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ((after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)) * 1000


def main() -> int:
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():  # interleaved, so that a noisy moment hits all alike
            samples[name].append(cpu_ms(command))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    floor = medians["python -c pass (floor)"]
    for name, value in medians.items():
        print(f"{name:<42} {value:6.1f} ms CPU   {value / floor if floor else 0:4.1f} x floor")
    print(f"budget of skerry --help: {medians['skerry --help']:.0f} of {BUDGET_MS} ms")
    return 1 if medians["skerry --help"] > BUDGET_MS else 0


if __name__ == "__main__":
    sys.exit(main())
