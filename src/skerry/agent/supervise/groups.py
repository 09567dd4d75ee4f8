# SPDX-License-Identifier: Apache-2.0
"""Memory limit and CPU share of a runner: control groups where the kernel lets us make them, else address space and nice.

- cgroup v2 where `memory` and `cpu` are delegated to us (systemd: Delegate=yes) or we are root; then v1; then neither.
- A group is one process's, so that a switch may have the old and the new version loaded at once: PREFIX-<workload>.<pid>,
  beside our own group. A process that is to have no limit stays where it is.
- A share of 1.0 is what one busy thread without a limit gets where processors are short; nothing is held back otherwise.
- A version in a trial has a part of its share only: where processors are short the one that serves goes first. Only groups do
  that, for a process made nicer without a privilege stays so.
- What a killed agent left is removed by the next one, as soon as nothing runs in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from skerry.wire.v1.device import Limits

_log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_V1_SHARES: Final = 1024
_V2_WEIGHT: Final = 100
_NICE_STEP: Final = 1.25  # sched(7): one step of nice
_NICEST: Final = 19
TRIED_SHARE: Final = 0.25


class Mechanism(StrEnum):
    V2 = "cgroup v2"
    V1 = "cgroup v1"
    NONE = "address space and nice"


@dataclass(frozen=True, kw_only=True)
class Groups:
    """`memory` and `cpu` are the folders our groups are made in; the same one in v2."""

    mechanism: Mechanism = Mechanism.NONE
    prefix: str = "skerry"
    memory: Path = Path()
    cpu: Path = Path()

    def place(self, pid: int, workload: str, limits: Limits) -> str:
        """Before the process does anything. What is in force, in words; empty when nothing was asked for."""
        if limits == Limits():
            return ""
        try:
            match self.mechanism:
                case Mechanism.V2:
                    self._place_v2(pid, workload, limits)
                case Mechanism.V1:
                    self._place_v1(pid, workload, limits)
                case Mechanism.NONE:
                    os.setpriority(os.PRIO_PROCESS, pid, nice_of(limits.cpu_share))
        except OSError as error:
            _log.warning("limits not in force workload=%s error=%s", workload, error)
            return f"not in force: {error.strerror or error}"
        return f"{self.mechanism}: {words(limits)}"

    def ease(self, pid: int, workload: str, limits: Limits) -> None:
        """It is tried beside a version that serves: it has less of the processors until `settle`."""
        if self.mechanism is not Mechanism.NONE:
            with _complaining(workload):
                group = self.cpu / self._name(pid, workload)
                group.mkdir(exist_ok=True)
                self._share(group, limits.cpu_share * TRIED_SHARE)
                _write(group / "cgroup.procs", pid)

    def settle(self, pid: int, workload: str, limits: Limits) -> None:
        """It serves, with all of its share."""
        group = self.cpu / self._name(pid, workload)
        if self.mechanism is Mechanism.NONE or not group.is_dir():
            return
        with _complaining(workload):
            if limits != Limits():
                self._share(group, limits.cpu_share)
                return
            home = self.cpu / f"{self.prefix}.agent"  # where processes without limits are, see `_enable`
            _write((home if home.is_dir() else self.cpu) / "cgroup.procs", pid)
            _remove(group)

    def left(self, pid: int, workload: str) -> str:
        """The process is gone, and so is its group. Why, if it was its limit; else empty."""
        killed = 0
        for folder in {self.memory, self.cpu}:
            group = folder / self._name(pid, workload)
            if self.mechanism is not Mechanism.NONE and group.is_dir():
                killed += _oom_kills(group)
                _remove(group)
        return "the kernel ended it: it needed more memory than its limit" if killed else ""

    def sweep(self) -> None:
        """Remove groups that nobody is in any more."""
        if self.mechanism is Mechanism.NONE:
            return
        for folder in {self.memory, self.cpu}:
            for group in folder.glob(f"{self.prefix}-*"):
                if not _read(group / "cgroup.procs").strip():
                    _remove(group)

    def _name(self, pid: int, workload: str) -> str:
        return f"{self.prefix}-{workload}.{pid}"

    def _place_v2(self, pid: int, workload: str, limits: Limits) -> None:
        group = self.memory / self._name(pid, workload)
        group.mkdir(exist_ok=True)
        if limits.memory_mib:
            _write(group / "memory.max", limits.memory_mib * _MIB)
            with contextlib.suppress(OSError):  # no swap accounting
                _write(group / "memory.swap.max", 0)
        self._share(group, limits.cpu_share)
        _write(group / "cgroup.procs", pid)

    def _share(self, group: Path, share: float) -> None:
        if self.mechanism is Mechanism.V2:
            _write(group / "cpu.weight", min(10_000, max(1, round(_V2_WEIGHT * share))))
        else:
            _write(group / "cpu.shares", max(2, round(_V1_SHARES * share)))

    def _place_v1(self, pid: int, workload: str, limits: Limits) -> None:
        for folder, file, value in (
            (self.memory, "memory.limit_in_bytes", limits.memory_mib * _MIB or -1),
            (self.cpu, "cpu.shares", max(2, round(_V1_SHARES * limits.cpu_share))),
        ):
            group = folder / self._name(pid, workload)
            group.mkdir(exist_ok=True)
            _write(group / file, value)
            _write(group / "cgroup.procs", pid)
        with contextlib.suppress(OSError):  # no swap accounting
            _write(
                self.memory / self._name(pid, workload) / "memory.memsw.limit_in_bytes", limits.memory_mib * _MIB or -1
            )


@contextlib.contextmanager
def _complaining(workload: str) -> Iterator[None]:
    """A share that cannot be changed is no reason to stop."""
    try:
        yield
    except OSError as error:
        _log.warning("share not changed workload=%s error=%s", workload, error)


def open_groups(state: Path, *, proc: Path = Path("/proc/self")) -> Groups:
    """The best there is for the agent of the folder `state`; groups left there by one that was killed are removed."""
    prefix = f"skerry-{hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:8]}"
    own = _own_groups(_read(proc / "cgroup"))
    mounts = _mounts(_read(proc / "mountinfo"))
    groups = _v2(prefix, own, mounts) or _v1(prefix, own, mounts) or Groups(mechanism=Mechanism.NONE, prefix=prefix)
    groups.sweep()
    return groups


def nice_of(share: float) -> int:
    """Only ever less than others: more takes a privilege."""
    return min(_NICEST, max(0, round(-math.log(max(share, 1e-3)) / math.log(_NICE_STEP))))


def words(limits: Limits) -> str:
    memory = f"memory {limits.memory_mib} MiB" if limits.memory_mib else ""
    share = f"cpu share {limits.cpu_share:g}" if limits.cpu_share != 1.0 else ""
    return ", ".join(filter(None, (memory, share)))


def _own_groups(text: str) -> dict[str, str]:
    """Controller -> our group in its hierarchy; "" for v2. Format: cgroups(7)."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _mounts(text: str) -> dict[str, Path]:
    """Controller -> where its hierarchy is mounted; "" for v2. Format: proc_pid_mountinfo(5)."""
    found: dict[str, Path] = {}
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:  # noqa: PLR2004 - type, source, options
            continue
        for controller in [""] if kind[0] == "cgroup2" else kind[2].split(","):
            found[controller] = Path(fields[4])
    return found


def _v1(prefix: str, own: dict[str, str], mounts: dict[str, Path]) -> Groups | None:
    if not {"memory", "cpu"} <= own.keys() & mounts.keys():
        return None
    memory, cpu = (_within(mounts[name], own[name]) for name in ("memory", "cpu"))
    usable = _can_make(memory, prefix) and _can_make(cpu, prefix)
    return Groups(mechanism=Mechanism.V1, prefix=prefix, memory=memory, cpu=cpu) if usable else None


def _v2(prefix: str, own: dict[str, str], mounts: dict[str, Path]) -> Groups | None:
    if "" not in own or "" not in mounts:
        return None
    folder = _within(mounts[""], own[""])
    if not {"memory", "cpu"} <= set(_read(folder / "cgroup.controllers").split()) or not _can_make(folder, prefix):
        return None
    try:
        _enable(folder, prefix)
    except OSError as error:
        _log.info("cgroup v2 not usable error=%s", error)
        return None
    return Groups(mechanism=Mechanism.V2, prefix=prefix, memory=folder, cpu=folder)


def _enable(folder: Path, prefix: str) -> None:
    """A group with controllers for its children may hold no process itself, unless it is the root: we move into a child."""
    if {"memory", "cpu"} <= set(_read(folder / "cgroup.subtree_control").split()):
        return
    try:
        (folder / "cgroup.subtree_control").write_text("+memory +cpu", "ascii")
    except OSError:
        agent = folder / f"{prefix}.agent"
        agent.mkdir(exist_ok=True)
        _write(agent / "cgroup.procs", os.getpid())
        (folder / "cgroup.subtree_control").write_text("+memory +cpu", "ascii")


def _within(mount: Path, path: str) -> Path:
    """In a container the path of our group may lie outside of what is mounted: then the mount is our group."""
    whole = mount / path.lstrip("/")
    return whole if whole.is_dir() else mount


def _can_make(folder: Path, prefix: str) -> bool:
    probe = folder / f"{prefix}-probe.{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    _remove(probe)
    return True


def _oom_kills(group: Path) -> int:
    for name in ("memory.events", "memory.oom_control"):
        for line in _read(group / name).splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill" and count.isdecimal():
                return int(count)
    return 0


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError as error:  # somebody is in it still: the next sweep
        _log.debug("group stays path=%s error=%s", group, error)


def _write(file: Path, value: int) -> None:
    file.write_text(str(value), "ascii")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
