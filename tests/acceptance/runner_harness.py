# SPDX-License-Identifier: Apache-2.0
"""A real runner process on a private listening socket, driven as the agent drives it. Also used by benchmarks."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import numpy as np

from skerry.bundle.manifest import BundleConfig, Egress, File, SelfTest, State, Tolerance, Variant
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.selftest import encode_samples, record
from skerry.runtime.sequences import stateful
from skerry.wire.v1.runner import Command, Event, Loaded, SelfTested, Serve, Serving, Start

E = TypeVar("E", bound=Event)


def write_bundle(
    folder: Path,
    model: bytes,
    inputs: dict[str, np.ndarray],
    *,
    name: str = "digits",
    version: str = "1.0.0",
    reference: bytes | None = None,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
    egress: Egress = Egress(),  # noqa: B008 - frozen
    state: tuple[State, ...] = (),
) -> Path:
    """An unpacked bundle with one variant `fp32`, golden outputs recorded by `reference` (the model itself by default)."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = stateful(OnnxEngine.load(reference or model), state)
    samples = encode_samples(inputs, record(engine, inputs))
    files = {"model.onnx": model, "self-test.npz": samples}
    for path, content in files.items():
        (folder / path).write_bytes(content)
    config = BundleConfig(
        schema="skerry/bundle/v1",
        name=name,
        version=version,
        line="demo",
        release_seq=1,
        io=stateful(OnnxEngine.load(model), state).io,
        variants=(
            Variant(
                name="fp32",
                runtime="onnxruntime",
                precision="fp32",
                model="model.onnx",
                files=("model.onnx",),
                tolerance=tolerance,
            ),
        ),
        self_test=SelfTest(file="self-test.npz", samples=len(next(iter(inputs.values())))),
        files=tuple(
            File(
                path=path,
                digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
                size=len(content),
                kind="self-test" if path.endswith("npz") else "weight",
            )
            for path, content in files.items()
        ),
        egress=egress,
    )
    (folder / "skerry.json").write_bytes(msgspec.json.encode(config))
    return folder


def listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


class RunnerProcess:
    """`events` collects everything the runner said; `expect` waits for the next of a type."""

    def __init__(
        self,
        bundle: Path,
        listener: socket.socket,
        *,
        env: dict[str, str] | None = None,
        python: Path | str = sys.executable,
        program: Sequence[str] = ("-m", "skerry.runner"),
        **start,
    ) -> None:
        self.listener = listener
        self.control, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [python, *program, "--control-fd", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), listener.fileno()),
            env={**os.environ, **(env or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.events: list[Event] = []
        self._next = 0
        self._arrived = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._log, daemon=True),
        ]
        self.stderr = b""
        for reader in self._readers:
            reader.start()
        if start.pop("begin", True):
            fields = {"workload": "w", "variant": "fp32", **start}
            self.send(Start(bundle_dir=str(bundle), listen_fd=listener.fileno(), **fields))

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, command: Command) -> None:
        self.control.sendall(msgspec.json.encode(command) + b"\n")

    def expect(self, kind: type[E], *, seconds: float = 20.0) -> E:
        """The next event of `kind`; others before it are passed over. Fails when the runner ends first."""
        end = time.monotonic() + seconds
        with self._arrived:
            while True:
                while self._next < len(self.events):
                    event = self.events[self._next]
                    self._next += 1
                    if isinstance(event, kind):
                        return event
                if not self._readers[0].is_alive() or not self._arrived.wait(max(0.0, end - time.monotonic())):
                    raise AssertionError(f"no {kind.__name__}; events {self.events}; stderr {self.stderr.decode()}")

    def serve(self) -> Self:
        """From Start to accepting connections."""
        self.expect(Loaded)
        assert self.expect(SelfTested).passed
        return self.serve_now()

    def serve_now(self) -> Self:
        self.send(Serve())
        self.expect(Serving)
        return self

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Meanwhile nothing is read of what the runner says."""
        with self._arrived:
            yield

    def wait(self, seconds: float = 20.0) -> int:
        return self.process.wait(seconds)

    def hang_up(self) -> None:
        """As if the agent had died."""
        self.control.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        for reader in self._readers:
            reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        decoder = msgspec.json.Decoder(Event)
        with self.control.makefile("rb") as lines:
            try:
                for line in lines:
                    with self._arrived:
                        self.events.append(decoder.decode(line))
                        self._arrived.notify_all()
            except OSError:
                pass  # the test closed our end
        with self._arrived:
            self._arrived.notify_all()

    def _log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line
