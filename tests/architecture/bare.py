# SPDX-License-Identifier: Apache-2.0
"""A bare environment: only what a device installs (base + ort, from requirements/device.lock, and our own wheel)."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet"]


def wheel() -> Path:
    """Build our wheel anew; leftovers of an earlier build would hide a file that was removed."""
    target = BUILD / "wheel"
    for stale in (target, BUILD / "lib", BUILD / "bdist.linux-x86_64"):
        shutil.rmtree(stale, ignore_errors=True)
    subprocess.run([sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", target, ROOT], check=True)
    return next(target.glob("skerry-*.whl"))


def bare_python() -> Path:
    """The interpreter of the bare environment; rebuilt when the lock changes, our wheel put in anew each time."""
    lock = ROOT / "requirements" / "device.lock"
    home = BUILD / ("device-" + hashlib.sha256(lock.read_bytes()).hexdigest()[:12])
    python = home / "bin" / "python"
    if not (home / ".complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, *PIP, "install", "--require-hashes", "-r", lock], check=True)
        (home / ".complete").touch()
    subprocess.run([python, *PIP, "install", "--no-deps", "--force-reinstall", wheel()], check=True)
    return python


_DISTRIBUTIONS = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"]: sum(f.locate().stat().st_size for f in d.files or [] if f.locate().is_file() and "__pycache__" not in str(f)) for d in m.distributions()}))
"""


def distributions(python: Path) -> dict[str, int]:
    """Installed distribution -> bytes, without pip and setuptools, which a device image drops."""
    done = subprocess.run([python, "-c", _DISTRIBUTIONS], check=True, capture_output=True, text=True)
    sizes = json.loads(done.stdout)
    return {name: size for name, size in sizes.items() if name not in {"pip", "setuptools"}}


_TOP_LEVEL = "import importlib.metadata as m, json; print(json.dumps(sorted(m.packages_distributions())))"


def third_party(python: Path, importtime: str) -> set[str]:
    """Installed top-level packages among what `python -X importtime` wrote (which also lists imports that failed)."""
    done = subprocess.run([python, "-c", _TOP_LEVEL], check=True, capture_output=True, text=True)
    installed = set(json.loads(done.stdout))
    lines = (line for line in importtime.splitlines() if line.startswith("import time:"))
    return {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in lines} & (installed - {"_distutils_hack"})


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def import_ms(python: Path, module: str) -> float:
    """Best of five cold imports, in milliseconds."""
    code = f"import time; a = time.perf_counter(); import {module}; print((time.perf_counter() - a) * 1000)"
    return min(
        float(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(5)
    )
