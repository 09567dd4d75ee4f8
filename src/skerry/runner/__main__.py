# SPDX-License-Identifier: Apache-2.0
"""Entry point. Libraries read these variables when they are imported, so they are set before anything else is."""

from __future__ import annotations

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy would start a thread per core for nothing
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from skerry.runner.main import main

if __name__ == "__main__":
    sys.exit(main())
