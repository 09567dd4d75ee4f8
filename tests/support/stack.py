# SPDX-License-Identifier: Apache-2.0
"""A real stack on loopback: one hub process, real agents with real runners; killed and restarted at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skerry.bundle import oci
from skerry.bundle.blob import MemoryBlob
from skerry.bundle.manifest import BundleConfig, Egress, SelfTest, Variant
from skerry.cli.hub_client import HubClient
from skerry.cli.push import blobs_of
from skerry.cli.release import SignedRole, entry_of, sign_release
from skerry.effects.http import UrllibHttp
from skerry.errors import SkerryError
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.selftest import encode_samples, record
from skerry.trust.keyfile import read_private
from skerry.wire.v1.operator import EnrolmentTokenRequest, RolloutSpec, RolloutStatus, RolloutView
from support.models import linear_classifier

LINE = "tests"
MODEL = "linear"
WORKLOAD = "answer"
SKERRY = [sys.executable, "-m", "skerry.cli.main"]
AGENT = [sys.executable, "-m", "skerry.agent.main"]


def wait_until(what: str, check: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        _pause(0.02)


def _pause(seconds: float) -> None:
    import threading

    threading.Event().wait(seconds)


def tiny_bundle(version: str, release_seq: int, *, hidden: int = 0, wrong: bool = False, seed: int = 0) -> oci.Bundle:
    """A linear classifier; `wrong` gives golden answers of another model, so that its self-test fails on every device.

    Every release has weights of its own, but for those with the same `seed`.
    """
    model = linear_classifier(seed=seed or release_seq, hidden=hidden)
    reference = OnnxEngine.load(linear_classifier(seed=release_seq + 1000, hidden=hidden) if wrong else model)
    inputs = {"x": np.random.default_rng(7).standard_normal((4, 4)).astype(np.float32)}
    samples = encode_samples(inputs, record(reference, inputs))
    config = BundleConfig(
        schema="skerry/bundle/v1",
        name=MODEL,
        version=version,
        line=LINE,
        release_seq=release_seq,
        io=reference.io,
        variants=(Variant(name="fp32", runtime="onnxruntime", precision="fp32", model="m.onnx", files=("m.onnx",)),),
        self_test=SelfTest(file="self-test.npz", samples=4),
        files=(),
        egress=Egress(results=("label",)),
        licenses=("Apache-2.0",),
    )
    return oci.build(config, {"m.onnx": MemoryBlob(model), "self-test.npz": MemoryBlob(samples)})


@dataclass(kw_only=True)
class Child:
    command: list[str]
    folder: Path
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


@dataclass(kw_only=True)
class AgentChild(Child):
    name: str
    state: Path
    id: str = ""

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.state / "status.json").read_bytes()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def workload(self) -> dict[str, Any]:
        return next((entry for entry in self.status().get("workloads", []) if entry["name"] == WORKLOAD), {})


@dataclass(kw_only=True)
class Stack:
    folder: Path
    port: int
    hub: Child
    environment: dict[str, str]
    agents: list[AgentChild] = field(default_factory=list)
    sequence: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> HubClient:
        config = json.loads((self.folder / "home/.config/skerry/config.json").read_bytes())
        return HubClient(UrllibHttp(), url=self.url, token=config["token"])

    def ready(self) -> bool:
        try:
            with UrllibHttp().request("GET", self.url + "/readyz", timeout=2) as reply:
                return reply.status == 200
        except SkerryError:
            return False

    def await_ready(self) -> None:
        try:
            wait_until("the hub's start", lambda: self.ready() or not self.hub.alive, 40)
            assert self.hub.alive
        except AssertionError as error:
            self.hub.stop()
            raise AssertionError(f"the hub did not start:\n{self.hub.tail()}") from error

    def publish(self, **options: bool | int) -> str:
        """The next version, in the catalogue. Returns its name `linear:N.0.0`."""
        self.sequence += 1
        version = f"{self.sequence}.0.0"
        bundle = tiny_bundle(version, self.sequence, **options)  # type: ignore[arg-type] # forwarded as given
        client = self.client()
        for digest, blob in blobs_of(bundle):
            if not client.has_blob(digest):
                client.put_blob(digest, blob.chunks(), size=blob.size)
        key = read_private(self.folder / f"keys/line-{LINE}.pem", passphrase=None)
        release = sign_release(
            entry_of(bundle),
            current=client.role_metadata(f"line-{LINE}"),
            targets=client.role_metadata("targets"),
            keys=[key],
            now=time.time(),
        )
        assert isinstance(release, SignedRole)
        client.publish_role(release.role, release.metadata)
        return f"{MODEL}:{version}"

    def add_agent(self, name: str, *arguments: str, hub: str = "") -> AgentChild:
        """`hub`: what the device takes for its hub, when that is not the hub itself."""
        token = self.client().make_enrolment_token(EnrolmentTokenRequest()).token
        state = self.folder / name
        join = [*AGENT, "join", "--hub", hub or self.url, "--token", token, "--state", str(state), "--name", name]
        subprocess.run(join, env=self.environment, check=True, capture_output=True, timeout=60)
        agent = AgentChild(
            name=name,
            state=state,
            command=[*AGENT, "run", "--state", str(state), "--poll", "1", *arguments],
            folder=self.folder,
            log=self.folder / f"{name}.log",
            environment=self.environment,
        )
        agent.id = next(device.id for device in self.client().devices() if device.name == name)
        agent.start()
        self.agents.append(agent)
        return agent

    def deploy(self, bundle: str, **fields: object) -> RolloutView:
        spec = {
            "workload": WORKLOAD,
            "bundle": f"{LINE}/{bundle}",
            "device_soak_seconds": 0.5,
            "deadline_seconds": 60.0,
        }
        return self.client().start_rollout(RolloutSpec(**{**spec, **fields}))  # type: ignore[arg-type] # as the spec takes them

    def await_rollout(self, rollout: RolloutView, wanted: RolloutStatus, seconds: float = 60) -> RolloutView:
        wait_until(
            f"rollout {rollout.id} being {wanted}", lambda: self.client().rollout(rollout.id).status == wanted, seconds
        )
        return self.client().rollout(rollout.id)

    def close(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.hub.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_stack(folder: Path) -> Stack:
    """A hub on demo trust, empty."""
    home = folder / "home"
    home.mkdir(parents=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SKERRY_", "XDG_"))}
    environment = {**kept, "HOME": str(home), "ORT_DISABLE_TELEMETRY": "1"}
    port = free_port()
    subprocess.run(
        [*SKERRY, "keys", "init", "--dir", "keys", "--line", LINE, "--demo"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    command = [*SKERRY, "up", "--data", "hub", "--trust", "keys/online", "--host", "127.0.0.1", "--port", str(port)]
    hub = Child(command=command, folder=folder, log=folder / "hub.log", environment=environment)
    stack = Stack(folder=folder, port=port, hub=hub, environment=environment)
    hub.start()
    stack.await_ready()
    return stack
