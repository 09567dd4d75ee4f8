# SPDX-License-Identifier: Apache-2.0
"""Write requirements/dev.lock (everything) and requirements/device.lock (base + ort), with hashes and no index names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"dev.lock": ["dev"], "device.lock": ["ort"]}


def compile_lock(name: str, extras: list[str]) -> None:
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--strip-extras", "--generate-hashes"]
    command += [
        "--no-header",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-emit-trusted-host",
        "--allow-unsafe",
    ]
    command += [f"--extra={extra}" for extra in extras]
    command += ["--output-file", f"requirements/{name}", "pyproject.toml"]
    subprocess.run(command, cwd=ROOT, check=True)
    path = ROOT / "requirements" / name
    path.write_text(without_self(path.read_text()))


def without_self(lock: str) -> str:
    """An extra that names other extras of ours puts `skerry @ file://...` into the lock; we install ourselves separately."""
    return re.sub(r"(?m)^skerry @ .*\n(?:    #.*\n)*", "", lock)


if __name__ == "__main__":
    for lock, extras in LOCKS.items():
        compile_lock(lock, extras)
        print("wrote", lock)
