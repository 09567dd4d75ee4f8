# SPDX-License-Identifier: Apache-2.0
"""A virtual environment per peer, made from its committed list of exact versions, kept outside the tree between runs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from serving_bench.servers import PEERS

_ROOT = Path(__file__).parents[2]
_MEGABYTE = 1e6
SERVES = ("httptools", "uvloop", "msgspec", "hpack", "skerry")
"""What a runner imports besides engine, numpy and protobuf, which an engine brings; the rest is the agent's."""

_PATIENCE = 1800

Say = Callable[[str], None]


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def peer(name: str, cache: Path, say: Say) -> Path | None:
    """Its interpreter; None, and why is said, when it cannot be installed here."""
    wanted = PEERS / name / "requirements.txt"
    return _environment(cache / name, wanted.read_bytes(), ["-r", str(wanted)], say)


def _environment(folder: Path, recipe: bytes, arguments: list[str], say: Say) -> Path | None:
    stamp = folder / "made-from"
    digest = hashlib.sha256(recipe + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text("ascii") == digest:
        return python_of(folder)
    say(f"installing {folder.name} into {folder} ...")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _install(folder, arguments)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        problem = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()[-1:] or [str(error)]
        say(f"{folder.name} left out, it cannot be installed here: {problem[0]}")
        return None
    stamp.write_text(digest, "ascii")
    return python_of(folder)


def _install(folder: Path, arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    pip = [python_of(folder), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
    subprocess.run([*pip, *arguments], check=True, capture_output=True, timeout=_PATIENCE)


def size_mb(python: Path, only: tuple[str, ...] = ("",)) -> float:
    """What the packages take on disk without bytecode and without pip and setuptools, which every environment has; or those whose
    names begin so.
    """
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    own = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
    files = (file for file in site.rglob("*") if file.is_file() and not file.is_symlink() and file.suffix != ".pyc")
    tops = ((file.relative_to(site).parts[0], file) for file in files)
    counted = (file for top, file in tops if top.startswith(only) and not top.startswith(own))
    return sum(file.stat().st_size for file in counted) / _MEGABYTE


def engine_alone(cache: Path, say: Say) -> Path | None:
    """The engine and numpy in the versions of requirements/device.lock: what every install is compared with."""
    pins = [
        line.split()[0]
        for line in (_ROOT / "requirements" / "device.lock").read_text().splitlines()
        if line.startswith(("onnxruntime==", "numpy=="))
    ]
    return _environment(cache / "engine", " ".join(pins).encode(), pins, say)


def ours(cache: Path, say: Say) -> Path | None:
    """Skerry as a device installs it: the locked packages and the tree at HEAD."""
    lock = _ROOT / "requirements" / "device.lock"
    head = subprocess.run(["git", "-C", _ROOT, "rev-parse", "HEAD"], check=True, capture_output=True).stdout
    python = _environment(cache / "skerry", lock.read_bytes() + head, ["--require-hashes", "-r", str(lock)], say)
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", _ROOT, "archive", "HEAD"], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile", "--no-deps"]
        done = subprocess.run([*pip, folder], capture_output=True, check=False)
    if done.returncode:
        say(f"install size left out: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")
        return None
    return python
