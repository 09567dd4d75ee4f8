# SPDX-License-Identifier: Apache-2.0
"""Runners of an agent that was killed: they serve on; the next agent finds them, replaces them and ends them.

They are found by their environment in /proc, not by pid files: that needs no write that could be missing, and a process
number used again by something else cannot carry our variables. A pidfd is held from before the check, so a signal can only
reach the process that was checked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

STATE_VARIABLE = "SKERRY_RUNNER_OF"
WORKLOAD_VARIABLE = "SKERRY_RUNNER_WORKLOAD"
DIGEST_VARIABLE = "SKERRY_RUNNER_DIGEST"
PORT_VARIABLE = "SKERRY_RUNNER_PORT"
NUMBERS = {name: f"SKERRY_RUNNER_{name.upper()}" for name in ("listen_fd", "unix_fd", "exchange_fd", "box_fd")}
"""Under which descriptor it holds which listening socket, by the names of wire.v1.runner.Start."""


@dataclass(frozen=True, kw_only=True)
class Orphan:
    pid: int
    pidfd: int
    workload: str
    digest: str
    listen_fd: int
    port: int
    unix_fd: int = -1
    exchange_fd: int = -1
    box_fd: int = -1

    def close(self) -> None:
        """Leave it alone."""
        os.close(self.pidfd)

    def end(self, *, patience: float) -> None:
        """SIGTERM (a runner drains on it), SIGKILL after `patience` seconds."""
        _log.info("end orphan pid=%d workload=%s", self.pid, self.workload)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(patience * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.close()


def find_orphans(state: Path, *, proc: Path = Path("/proc")) -> tuple[Orphan, ...]:
    """Every live runner of this user that was started for the state folder `state`."""
    found = (_look(proc / name, str(state.resolve())) for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208 - names
    return tuple(orphan for orphan in found if orphan is not None)


def _look(entry: Path, state: str) -> Orphan | None:
    if _variables(entry).get(STATE_VARIABLE) != state:
        return None
    pid = int(entry.name)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    variables = _variables(entry)  # again: from here on the number cannot change hands
    if variables.get(STATE_VARIABLE) != state or not _alive(entry):
        os.close(pidfd)
        return None
    return Orphan(
        pid=pid,
        pidfd=pidfd,
        workload=variables.get(WORKLOAD_VARIABLE, ""),
        digest=variables.get(DIGEST_VARIABLE, ""),
        port=int(variables.get(PORT_VARIABLE, "0")),
        **{name: int(variables.get(variable, "-1")) for name, variable in NUMBERS.items()},
    )


def _variables(entry: Path) -> dict[str, str]:
    try:
        data = (entry / "environ").read_bytes()
    except OSError:  # gone, or another user's
        return {}
    pairs = (part.decode("utf-8", "surrogateescape").partition("=") for part in data.split(b"\0") if part)
    return {key: value for key, _, value in pairs}


def _alive(entry: Path) -> bool:
    try:
        stat = (entry / "stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
