# SPDX-License-Identifier: Apache-2.0
"""The command line as its users run it: processes, an environment of their own, a real hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SKERRY = [sys.executable, "-m", "skerry.cli.main"]


class Cli:
    """One user with a home folder."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        dropped = ("SKERRY_", "XDG_", "COV")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        self.environ = {**kept, "HOME": str(home), "ORT_DISABLE_TELEMETRY": "1", **environ}

    def run(self, *arguments: object, expect: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*SKERRY, *map(str, arguments)],
            cwd=self.home,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        if expect is not None:
            assert ran.returncode == expect, f"exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def json(self, *arguments: object, expect: int = 0):
        return json.loads(self.run(*arguments, "-o", "json", expect=expect).stdout)

    def start(self, *arguments: object, log: Path) -> subprocess.Popen[str]:
        with log.open("w") as errors:
            return subprocess.Popen(
                [*SKERRY, *map(str, arguments)],
                cwd=self.home,
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )


def stop(process: subprocess.Popen[str]) -> int:
    """SIGTERM, and SIGKILL when that is not heeded; the exit code."""
    process.terminate()
    try:
        return process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(timeout=5)
    finally:
        if process.stdout:
            process.stdout.close()


class RunningHub:
    """`skerry up --demo-trust` on a free port. `url`, `keys` and the administrator's `cli`."""

    def __init__(self, folder: Path) -> None:
        self.cli = Cli(folder)
        self.log = folder / "hub.log"
        self._command = ("up", "--data", folder / "hub", "--demo-trust", "--demo-line", "plants", "--poll", "1s")
        self._process = self.cli.start(*self._command, "--port", "0", "-o", "json", log=self.log)
        self.greeting = self._read_greeting()
        self.url = self.greeting["url"]
        self.keys = Path(self.greeting["demo_keys"])

    def _read_greeting(self):
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()
        return json.loads(line)

    def stop(self) -> int:
        return stop(self._process)

    def restart(self) -> None:
        port = self.url.rpartition(":")[2]
        self._process = self.cli.start(*self._command, "--port", port, "-o", "json", log=self.log)
        self.greeting = self._read_greeting()
