# SPDX-License-Identifier: Apache-2.0
"""A hub as a process of its own on loopback, served by the real server."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, sys
from pathlib import Path
from skerry.hub.app import HubConfig, serve
settings = json.loads(sys.argv[1])
for name in ("data", "trust", "tls_cert", "tls_key"):
    if name in settings:
        settings[name] = Path(settings[name])
def say(**words):
    print(json.dumps(words), flush=True)
serve(HubConfig(**settings), on_admin=lambda user: say(admin=user.token), on_ready=lambda url: say(url=url))
"""


@dataclass(kw_only=True)
class HubProcess:
    settings: dict[str, Any]
    log: Path
    url: str = ""
    admin: str = ""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> HubProcess:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(self.settings)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")},
            )
        said: queue.Queue[dict[str, str] | None] = queue.Queue()
        threading.Thread(target=self._listen, args=(said,), daemon=True).start()
        self.url = ""
        while not self.url:
            words = said.get(timeout=40)
            assert words is not None, f"the hub ended:\n{self.log.read_text()}"
            self.admin = words.get("admin", self.admin)
            self.url = words.get("url", "")
        return self

    def _listen(self, said: queue.Queue[dict[str, str] | None]) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.put(json.loads(line))
        said.put(None)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        assert self._process is not None
        code = self._process.wait(timeout=seconds)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def stop(self) -> int:
        if self._process is None or self._process.poll() is not None:
            return self._process.returncode if self._process is not None else 0
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()
