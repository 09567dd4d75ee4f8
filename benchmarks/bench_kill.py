# SPDX-License-Identifier: Apache-2.0
"""kill -9 of hub and agents at random instants during rollouts: wrong records and half-installed models, both to be 0.

python benchmarks/bench_kill.py [KILLS] [SEED]        default 200 kills, about ten minutes
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.kill_sweep import Sweep
from support.stack import start_stack


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        stack = start_stack(Path(folder) / "stack")
        try:
            for number in range(1, 4):
                stack.add_agent(f"agent-{number}")
            findings = Sweep(stack, kills=kills, seed=seed).run()
        finally:
            stack.close()
    print(f"seed {seed}, {time.monotonic() - begin:.0f} s, 3 agents")
    print(f"kill -9: hub {findings.kills['hub']}, agents {findings.kills['agent']}")
    print(f"rollouts {findings.rollouts}, of bad versions {findings.bad_versions}, undone {findings.undone}")
    for reason in findings.good_undone:
        print(f"  good, yet undone: {reason}")
    print(f"wrong records {len(findings.wrong_records)}, half-installed models {len(findings.half_installed)}")
    for finding in findings.wrong_records + findings.half_installed:
        print("  " + finding)
    return 1 if findings.wrong_records or findings.half_installed else 0


if __name__ == "__main__":
    sys.exit(main())
