# SPDX-License-Identifier: Apache-2.0
"""What processes cost, read from Linux's /proc: CPU time, memory, pressure, energy. Nothing here raises for a process that ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

_NS: Final = 1e9
_KIB: Final = 1024
_STARTED: Final = 19  # behind the name in parentheses
_PROC: Final = Path("/proc")
_POWERCAP: Final = Path("/sys/class/powercap")
_MICROJOULE: Final = 1e-6
_LISTENS: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h
_PACKAGE: Final = re.compile(r"intel-rapl:\d+")  # `intel-rapl:0:1` is a part of one and would count twice


class Memory(Struct, frozen=True, kw_only=True):
    """MiB. `pss` shares out what several processes have in common; it is 0 where the kernel does not tell."""

    rss: float
    pss: float


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # it ended, or it is not ours to look at
        return ""


def _parent(pid: int) -> int:
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def tree(root: int) -> tuple[int, ...]:
    """`root` and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(_PROC):  # noqa: PTH208 - names
        if name.isdigit():
            children.setdefault(_parent(int(name)), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return tuple(found)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all live threads, to the nanosecond (`/proc/PID/stat` counts in ticks of 10 ms)."""
    total = 0.0
    for pid in pids:
        for task in _entries(_PROC / str(pid) / "task"):
            fields = _read(task / "schedstat").split()
            total += int(fields[0]) / _NS if fields else 0.0
    return total


def _entries(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(folder.iterdir())
    except OSError:
        return ()


def memory(pids: Iterable[int]) -> Memory:
    rss = pss = 0
    for pid in pids:
        fields = _fields(_PROC / str(pid) / "smaps_rollup")
        if not fields:  # another user's: the kernel tells only RSS
            fields = {"Rss": _fields(_PROC / str(pid) / "status").get("VmRSS", "0 kB")}
        rss += _kib(fields.get("Rss", "0 kB"))
        pss += _kib(fields.get("Pss", "0 kB"))
    return Memory(rss=rss / _KIB, pss=pss / _KIB)


def _fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _read(path).splitlines())
    return {name: value for name, colon, value in pairs if colon and value.endswith("kB")}


def _kib(text: str) -> int:
    return int(text.split(maxsplit=1)[0])


def threads(pids: Iterable[int]) -> int:
    return sum(len(_entries(_PROC / str(pid) / "task")) for pid in pids)


def pressure() -> float | None:
    """Per cent of the last 10 s in which some task waited for a CPU; None where the kernel does not count it."""
    match = re.search(r"^some avg10=([\d.]+)", _read(_PROC / "pressure" / "cpu"), re.MULTILINE)
    return float(match[1]) if match else None


def energy(folder: Path = _POWERCAP) -> float | None:
    """Joules of all CPU packages since some instant (RAPL); None where this machine has no counter or keeps it to root."""
    total = 0.0
    seen = False
    for package in _entries(folder):
        text = _read(package / "energy_uj").strip()
        if _PACKAGE.fullmatch(package.name) and text.isdigit():
            total += int(text) * _MICROJOULE
            seen = True
    return total if seen else None


def listener_of(port: int) -> int | None:
    """The process of this user that serves a TCP port of this machine, so that its CPU and memory can be read."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in _read(_PROC / "net" / table).splitlines()[1:]]
    return _holder({fields[9] for fields in lines if fields[3] == _LISTENS and fields[1].endswith(f":{port:04X}")})


def unix_listener(path: str) -> int | None:
    """The same for a unix socket. The kernel knows it by the name it was bound to: an agent renames it afterwards."""
    place = Path(path).absolute()
    names = {path, str(place), str(place.with_name(f".{place.name}.new"))}
    lines = [line.split(maxsplit=7) for line in _read(_PROC / "net" / "unix").splitlines()[1:]]
    return _holder({fields[6] for fields in lines if names.intersection(fields[7:])})


def _holder(inodes: set[str]) -> int | None:
    """Who has one of these sockets open. An agent hands its listeners on: then it is the youngest that serves."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    processes = [entry for entry in _entries(_PROC) if entry.name.isdigit()]
    holders = [entry for entry in processes if any(_target(link) in wanted for link in _entries(entry / "fd"))]
    return int(max(holders, key=_age).name) if holders else None


def _age(process: Path) -> tuple[int, int]:
    """Grows with the time it was started: numbers of processes begin anew one day (proc_pid_stat(5), field 22)."""
    fields = _read(process / "stat").rpartition(")")[2].split()
    return (int(fields[_STARTED]) if len(fields) > _STARTED else 0, int(process.name))


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
