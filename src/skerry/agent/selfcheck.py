# SPDX-License-Identifier: Apache-2.0
"""`skerry-agent --self-test`: can this installation work at all? Keys, database, file system, runner program."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from skerry import __version__
from skerry.agent import capabilities as capability
from skerry.agent.history import History
from skerry.agent.identity import ensure_identity
from skerry.agent.outbox import Outbox
from skerry.agent.supervise.process import COMMAND
from skerry.effects.disk import DiskFiles
from skerry.errors import RunnerFailed, SkerryError, StateDamaged
from skerry.trust.chain import Intact

_RUNNER_SECONDS = 60


def main() -> int:
    """One line a check on stdout; the exit code is 0 when all passed."""
    measured = capability.measure(version=__version__)
    sys.stdout.write(f"skerry-agent {__version__}: {msgspec.json.encode(measured).decode()}\n")
    passed = True
    with tempfile.TemporaryDirectory(prefix="skerry-self-test-") as folder:
        for name, check in _checks(Path(folder)).items():
            try:
                check()
            except SkerryError as error:
                passed = False
                sys.stdout.write(f"FAIL {name}: {error.code} {error}\n")
            else:
                sys.stdout.write(f"ok   {name}\n")
    return 0 if passed else 1


def _checks(folder: Path) -> dict[str, Callable[[], None]]:
    return {
        "key, history and outbox": lambda: _history(folder),
        "runner program": _runner,
    }


def _history(folder: Path) -> None:
    identity = ensure_identity(DiskFiles(), folder / "key.pem")
    outbox = Outbox(folder / "outbox.db")
    history = History(outbox, device_id="self-test", private_key=identity.private_key)
    history.append("self-test", at=0.0, fields={"version": __version__})
    verified = history.verify(identity.public_key)
    outbox.close()
    if not isinstance(verified, Intact):
        raise StateDamaged(path=str(folder), problem=verified.problem)


def _runner() -> None:
    try:
        done = subprocess.run(
            [*COMMAND, "--help"], capture_output=True, timeout=_RUNNER_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerFailed(workload="self-test", problem=str(error)) from error
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise RunnerFailed(workload="self-test", problem=last or f"exit code {done.returncode}")
