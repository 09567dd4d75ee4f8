# SPDX-License-Identifier: Apache-2.0
"""Model servers as process trees that can be started, frozen, pinned to a core and weighed; ours and the peers alike."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from acceptance.runner_harness import write_bundle
from serving_bench import messages
from serving_bench.load import Loader, Ready, WrongAnswer
from serving_bench.messages import Exchange
from serving_bench.models import Model
from skerry.cli.benching import processes
from skerry.cli.benching.private import PrivateRunner, Setting
from skerry.cli.benching.processes import Memory

PATIENCE = 90.0
PEERS = Path(__file__).parents[1] / "peers"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Server(ABC):
    """One model in one process tree. Ways of asking: a label -> what to send and where."""

    name: str

    def __init__(self, model: Model, folder: Path) -> None:
        self.model = model
        self.folder = folder

    @property
    @abstractmethod
    def root(self) -> int: ...

    @abstractmethod
    def start(self) -> None:
        """Spawn; does not wait."""

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def ways(self) -> Mapping[str, tuple[Exchange, str]]:
        """The first is the one that cold start, slow pace and the health probe use."""

    @abstractmethod
    def health(self) -> tuple[Exchange, str]: ...

    @property
    def ended(self) -> bool:
        """By itself, before anybody stopped it."""
        return False

    def log(self) -> str:
        return ""

    # --- what any process tree can do ---

    @property
    def pids(self) -> tuple[int, ...]:
        return processes.tree(self.root)

    def cpu(self) -> float:
        return processes.cpu_seconds(self.pids)

    def memory(self) -> Memory:
        return processes.memory(self.pids)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pin(self, cores: set[int]) -> None:
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task.name), cores)

    def first_answer(self, loader: Loader) -> Ready:
        """Start, and ask until the answer is right. Raises WrongAnswer when it never is."""
        self.start()
        exchange, address = next(iter(self.ways().values()))
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return loader.ready(exchange, address, self.model.y)
            except (WrongAnswer, OSError) as error:
                if self.ended or time.monotonic() > end:
                    raise WrongAnswer(f"{self.name}: {error}; {self.log()}") from error
            time.sleep(0.01)


class Ours(Server):
    name = "skerry"

    def __init__(self, model: Model, folder: Path) -> None:
        super().__init__(model, folder)
        self._bundle = folder / f"bundle-{model.name}"
        if not self._bundle.exists():
            write_bundle(self._bundle, model.file.read_bytes(), {"input": model.x}, name=model.name)
        self._runner: PrivateRunner | None = None

    @property
    def runner(self) -> PrivateRunner:
        assert self._runner is not None
        return self._runner

    @property
    def root(self) -> int:
        return self.runner.pid

    def start(self) -> None:
        self._runner = PrivateRunner(self._bundle, Setting(variant="fp32", probe_seconds=1.0), folder=self.folder)

    def stop(self) -> None:
        if self._runner is not None:
            self._runner.stop()

    def ways(self) -> Mapping[str, tuple[Exchange, str]]:
        name, x = self.model.name, self.model.x
        tcp, unix = f"tcp:{self.runner.port}", f"unix:{self.runner.path}"
        return {
            "TCP binary": (messages.binary_request(name, x), tcp),
            "TCP binary with an id": (messages.binary_request(name, x, id="1"), tcp),
            "TCP JSON": (messages.json_request(name, x), tcp),
            "unix binary": (messages.binary_request(name, x), unix),
            "shared memory": (messages.shared_memory(x), f"{self.runner.path}#{name}"),
            "gRPC": (messages.grpc_request(name, x, self.runner.port), tcp),
        }

    def health(self) -> tuple[Exchange, str]:
        return messages.health_request("/v2/health/live"), f"tcp:{self.runner.port}"


class Peer(Server):
    """A server of `benchmarks/peers/NAME/server.py` in its own virtual environment."""

    protocols: tuple[str, ...] = ("JSON",)
    more: Mapping[str, str] = MappingProxyType({})
    health_path = "/v2/health/live"

    def __init__(self, model: Model, folder: Path, *, python: Path) -> None:
        super().__init__(model, folder)
        self._python = python
        self._http, self._grpc = free_port(), free_port()
        self._log = folder / f"{self.name}-{model.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        script = PEERS / self.name / "server.py"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._python, script, self.model.name, self.model.file, str(self._http), str(self._grpc)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={
                    **os.environ,
                    "ORT_DISABLE_TELEMETRY": "1",
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "TMPDIR": str(self.folder),
                    "PYTHONDONTWRITEBYTECODE": "",
                },
                start_new_session=True,
            )

    def stop(self) -> None:
        if self._process is None:
            return
        for pid in reversed(self.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # children whose parent has gone
        self._process.wait(10)

    def ways(self) -> Mapping[str, tuple[Exchange, str]]:
        return {protocol: self._way(protocol) for protocol in self.protocols}

    def _way(self, protocol: str) -> tuple[Exchange, str]:
        name, x = self.model.name, self.model.x
        match protocol:
            case "gRPC":
                return messages.grpc_request(name, x, self._grpc, **self.more), f"tcp:{self._grpc}"
            case "binary":
                return messages.binary_request(name, x, **self.more), f"tcp:{self._http}"
            case _:
                return self.json(x), f"tcp:{self._http}"

    def json(self, x: np.ndarray) -> Exchange:
        return messages.json_request(self.model.name, x, **self.more)

    def health(self) -> tuple[Exchange, str]:
        return messages.health_request(self.health_path), f"tcp:{self._http}"

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-600:]


class MlServer(Peer):
    name = "mlserver"
    protocols = ("JSON", "gRPC")
    more = MappingProxyType({"id": "1"})


class KServe(Peer):
    name = "kserve"
    protocols = ("gRPC", "JSON", "binary")
    more = MappingProxyType({"id": "1"})


class Triton(Peer):
    name = "triton"
    protocols = ("binary", "JSON", "gRPC")


class LitServe(Peer):
    name = "litserve"
    health_path = "/health"

    def json(self, x: np.ndarray) -> Exchange:
        return messages.plain_request("/predict", x, lambda answer: answer["output"])


class BentoMl(Peer):
    name = "bentoml"
    health_path = "/livez"

    def json(self, x: np.ndarray) -> Exchange:
        return messages.plain_request("/predict", x, lambda answer: answer)


KINDS: dict[str, type[Peer]] = {kind.name: kind for kind in (MlServer, KServe, LitServe, BentoMl, Triton)}
