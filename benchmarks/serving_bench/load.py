# SPDX-License-Identifier: Apache-2.0
"""load.c from Python: compiled once into a folder; an answer is compared with the bare engine's before its bytes are relied on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec import json as fast

from serving_bench.messages import Exchange

_SOURCE = Path(__file__).with_name("load.c")
_SHARED = Path(__file__).with_name("shared.py")
_TOLERANCE = 1e-3
"""Relative: optimised and plain graphs differ in the fifth digit; a wrong answer differs in the first."""


class WrongAnswer(Exception):
    """A server that answers something else is not measured."""


class Sample(Struct, frozen=True):
    """What load.c prints. Microseconds, except `seconds`; `requests` counts those after the warm-up."""

    requests: int
    total: int
    bad: int
    seconds: float
    min: float
    p10: float
    p50: float
    p90: float
    p99: float
    mean: float
    client_cpu: float
    problem: str

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A checked way of asking: `request` and `expected` are files for load.c; no `expected` = the status is enough."""

    kind: str
    address: str
    request: Path
    expected: Path | None


class Loader:
    def __init__(self, folder: Path) -> None:
        """Compiles load.c into `folder`."""
        self._folder = folder
        self._program = folder / "load"
        self._count = 0
        subprocess.run(["cc", "-O2", "-Wall", "-o", self._program, _SOURCE], check=True)

    def ready(self, exchange: Exchange, address: str, y: np.ndarray | None) -> Ready:
        """Asks once. Raises WrongAnswer when nothing comes or it is not `y`; OSError when nobody listens."""
        self._count += 1
        request, answer = (self._folder / f"{self._count}.{part}" for part in ("request", "answer"))
        request.write_bytes(exchange.request)
        if exchange.kind == "shm":
            return self._shared(Ready(kind="shm", address=address, request=request, expected=answer), y)
        ready = Ready(kind=exchange.kind, address=address, request=request, expected=None)
        sample = self.run(ready, seconds=0, options=("patience=20", f"dump={answer}"))
        if sample.problem or not answer.exists():
            raise WrongAnswer(f"{exchange.kind} {address}: {sample.problem or 'nothing'}")
        if y is None:
            return ready
        self._compare(exchange, answer.read_bytes(), y)
        return Ready(kind=exchange.kind, address=address, request=request, expected=answer)

    def _shared(self, ready: Ready, y: np.ndarray | None) -> Ready:
        assert ready.expected is not None
        with ready.expected.open("wb") as file:
            np.save(file, y)
        sample = self.run(ready, seconds=0.01)
        if sample.bad:
            raise WrongAnswer(f"{ready.address}: {sample.problem}")
        return ready

    @staticmethod
    def _compare(exchange: Exchange, body: bytes, y: np.ndarray) -> None:
        try:
            got = exchange.read(body)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise WrongAnswer(f"{error}: {body[:300]!r}") from error
        if got.shape != y.shape or not np.allclose(got, y, rtol=_TOLERANCE, atol=_TOLERANCE * float(np.abs(y).max())):
            raise WrongAnswer(f"{got.ravel()[:4]} instead of {y.ravel()[:4]}")

    def run(
        self,
        ready: Ready,
        *,
        seconds: float = 1.0,
        connections: int = 1,
        core: int | None = None,
        options: tuple[str, ...] = (),
    ) -> Sample:
        """Raises OSError when nobody listens."""
        done = self.start(ready, seconds=seconds, connections=connections, core=core, options=options)
        return finish(done)

    def start(
        self,
        ready: Ready,
        *,
        seconds: float,
        connections: int = 1,
        core: int | None = None,
        options: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        if ready.kind == "shm":
            path, model = ready.address.split("#")
            words = [sys.executable, _SHARED, path, model, ready.request, ready.expected, seconds, 30]
            return _started(words)
        words = [self._program, ready.kind, ready.address, connections, seconds, ready.request, ready.expected or "-"]
        pin = [] if core is None else ["taskset", "-c", core]
        return _started([*pin, *words, *options])


def _started(words: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Sample:
    out, err = process.communicate(timeout=120)
    if process.returncode:
        raise ConnectionError(err.strip())
    return fast.decode(out, type=Sample)


class Bare:
    """bare.py as a process that waits to be asked."""

    def __init__(self, python: Path | str, model: Path, x: np.ndarray, folder: Path) -> None:
        file = folder / f"{model.stem}.npy"
        np.save(file, x)
        script = Path(__file__).with_name("bare.py")
        self.process = subprocess.Popen(
            [python, script, model, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, seconds: float, *, every: float = 0.0) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"seconds": seconds, "every": every}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
