# SPDX-License-Identifier: Apache-2.0
"""A runner gives up what serving a model does not need, before it opens the model.

What is left to code that a model file manages to run: this process's memory and open sockets, reading the bundle and the
Python installation, and writing to the bundle's own cache folder. Every layer is there or missing on its own; the report says
which, and why not.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import skerry
from skerry.runner import landlock, seccomp
from skerry.runner.landlock import Access

_SET_NO_NEW_PRIVILEGES: Final = 38  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)

# Reading these tells a model's code nothing about others: libraries, time zones, the kinds of processor and memory.
_SYSTEM: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store"),
    *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
    *(
        "/proc/self",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/sys/vm",
        "/sys/devices",
        "/sys/bus",
        "/sys/class",
    ),
    *("/dev/urandom", "/dev/zero"),
)
_DEVICES: Final = ("dri", "accel", "hailo0", "apex_0", "kfd")
"""Accelerators in /dev, beside NVIDIA's nodes: a driver in this process opens them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Layer -> "on" with what it denies, or "off" with the reason."""

    layers: dict[str, str]

    def __str__(self) -> str:
        return "; ".join(f"{name} {state}" for name, state in self.layers.items())


OFF: Final = Report(layers={"sandbox": "off: not asked for"})


def enter(*, bundle: Path, cache: Path | None = None, shared_memory: bool = False) -> Report:
    """For this process, for good. Call with one thread. Open files and sockets stay open; nothing is raised."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold clients' data
    access = Access(
        read=(bundle, *_installation(), *map(Path, _SYSTEM)),
        write=(Path("/dev/null"), *_accelerators(), *((Path("/dev/shm"),) if shared_memory else ())),  # noqa: S108 - the system's own
        replace=(cache,) if cache is not None else (),
    )
    if _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        reason = f"off: no_new_privs: {os.strerror(ctypes.get_errno())}"
        return Report(layers=dict.fromkeys(("no_new_privs", "landlock", "seccomp"), reason))
    return Report(layers={"no_new_privs": "on", "landlock": _landlock(access), "seccomp": _seccomp()})


def _landlock(access: Access) -> str:
    version = landlock.abi()
    if not version:
        return "off: this kernel does not offer it"
    try:
        return f"on: {landlock.restrict(access, version)}"
    except OSError as error:
        return f"off: {error.strerror}"


def _seccomp() -> str:
    try:
        seccomp.install()
    except OSError as error:
        return f"off: {error.strerror}"
    return "on"


def _installation() -> Iterator[Path]:
    """Where modules and libraries are loaded from. `python -m` puts the working folder among them: that one is not ours."""
    package = Path(skerry.__file__).resolve().parents[1]
    here = Path.cwd()
    yield package
    yield from (Path(prefix) for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})
    yield Path(os.__file__).parent
    for entry in (*sys.path, *os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        path = Path(entry)
        if path.is_absolute() and path != here:
            yield path


def _accelerators() -> Iterator[Path]:
    yield from Path("/dev").glob("nvidia*")
    yield from (Path("/dev") / name for name in _DEVICES)
