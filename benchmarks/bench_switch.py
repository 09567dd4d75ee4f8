# SPDX-License-Identifier: Apache-2.0
"""Requests dropped while the runner behind one listening socket is exchanged 20 times under load. Must be 0."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from acceptance.runner_harness import listen, write_bundle
from acceptance.switch_load import switch_under_load
from contracts.engine.models import affine, classifier

SWITCHES = 20


def main() -> int:
    x = np.ones((2, 4), np.float32)
    with tempfile.TemporaryDirectory() as folder, listen() as listener:
        bundles = (
            write_bundle(Path(folder) / "a", affine(), {"x": x}),
            write_bundle(Path(folder) / "b", classifier(), {"x": x}),
        )
        tally = switch_under_load(bundles, listener, switches=SWITCHES)
    print(f"dropped {tally.dropped} of {tally.asked} over {SWITCHES} switches")
    return 1 if tally.dropped else 0


if __name__ == "__main__":
    sys.exit(main())
