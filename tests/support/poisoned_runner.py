# SPDX-License-Identifier: Apache-2.0
"""The real runner, whose engine has a hole.

An input that holds 666 makes native code read address 0 (or abort). One that holds 777 tries what a model's code should not
be able to do; the answer's scores say which attempts succeeded.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from skerry.runner.main import main
from skerry.runtime.datatypes import Array
from skerry.runtime.onnx import OnnxEngine

_POISON, _ATTEMPT = 666, 777
_run = OnnxEngine.run


def _connect() -> None:
    with socket.socket() as made:
        made.connect(("127.0.0.1", 9))


def _succeeds(action: Callable[[], object]) -> float:
    try:
        action()
    except PermissionError:
        return 0.0
    except OSError:  # allowed, and failed for another reason
        return 1.0
    return 1.0


def attempt() -> list[float]:
    """1.0 for what could be done: read a file that is not ours, reach the network, start a program."""
    return [
        _succeeds(Path("/etc/passwd").read_bytes),
        _succeeds(_connect),
        _succeeds(lambda: subprocess.run(["/bin/true"], check=False)),
    ]


def run(self: OnnxEngine, inputs: Mapping[str, Array]) -> dict[str, Array]:
    if any((array == _ATTEMPT).any() for array in inputs.values()):
        answer = _run(self, inputs)
        answer["scores"][:] = attempt()
        return answer
    if any((array == _POISON).any() for array in inputs.values()):
        if os.environ.get("TMPDIR") == "abort":
            os.abort()
        ctypes.string_at(0)
    return _run(self, inputs)


OnnxEngine.run = run  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
