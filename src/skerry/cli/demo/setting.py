# SPDX-License-Identifier: Apache-2.0
"""Where the demo plays: a folder, a hub, five agents that can do different things, and the commands an operator would type."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skerry.cli.demo.models import Built, Images
from skerry.cli.demo.narrator import Narrator
from skerry.cli.demo.processes import AGENT, SKERRY, Device, Process, World, free_port, wait_until
from skerry.cli.hub_client import HubClient
from skerry.cli.settings import load_settings, settings_path
from skerry.effects.disk import DiskFiles
from skerry.effects.http import UrllibHttp
from skerry.errors import CommandFailed, SkerryError

LINE = "vision"
MODEL = "digits"
WORKLOAD = "digits"
FLEET = "counters"
INT8_INSTRUCTION = "int8-dot"
"""Stands for an instruction set that only some of the devices have; the int8 variant asks for it."""

_PROJECT = """\
apiVersion: skerry/v1alpha1
kind: Model
metadata:
  name: digits
  version: "{version}"
  line: vision
spec:
  task: image-classification
  description: Handwritten digits, 8x8 scans
  release_seq: {release_seq}
  latency_budget_ms: 10
  variants:
    - name: fp32
      file: fp32.onnx
    - name: int8
      file: int8.onnx
      precision: int8
      needs: {{instructions: [int8-dot]}}
      tolerance: {{top1: true, agreement: 0.9}}
  io:
    inputs:
      - {{name: image, dtype: FP32, shape: [-1, 64], range: [0, 1]}}
    outputs:
      - {{name: label, dtype: INT64, shape: [-1]}}
      - {{name: probabilities, dtype: FP32, shape: [-1, 10]}}
  self_test:
    samples: samples.npz
  egress:
    results: [label]
  licenses: [Apache-2.0]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Runs `skerry ...` as a person would: a process of its own, this environment, in the demo's folder."""

    folder: Path
    environment: dict[str, str]
    narrator: Narrator

    def skerry(self, *words: str, expect: int = 0, show: bool = True, both: bool = False) -> str:
        """Standard output (and standard error, if `both`). Raises CommandFailed when the exit code is not `expect`."""
        if show:
            self.narrator.command("skerry", *words)
        done = subprocess.run(
            [*SKERRY, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != expect:
            raise CommandFailed(
                command="skerry " + " ".join(words),
                exit_code=done.returncode,
                expected=expect,
                output=(done.stdout + done.stderr)[-2000:],
            )
        return done.stdout + (done.stderr if both or expect else "")


def environment_for(folder: Path) -> dict[str, str]:
    """The demo's own home: nothing of the user's configuration is read or written."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")}
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "ORT_DISABLE_TELEMETRY": "1"}


def write_project(folder: Path, built: Built, *, version: str, release_seq: int, images: Images) -> Path:
    project = folder / f"digits-{version}"
    project.mkdir()
    (project / "skerry.yaml").write_text(_PROJECT.format(version=version, release_seq=release_seq))
    (project / "fp32.onnx").write_bytes(built.fp32.read_bytes())
    (project / "int8.onnx").write_bytes(built.int8.read_bytes())
    np.savez(project / "samples.npz", image=images)
    return project


def start_hub(shell: Shell) -> World:
    port = free_port()
    command = [*SKERRY, "up", "--data", "hub", "--trust", "keys/online", "--host", "127.0.0.1", "--port", str(port)]
    hub = Process(command=command, log=shell.folder / "hub.log", environment=shell.environment, folder=shell.folder)
    world = World(folder=shell.folder, hub=hub, hub_url=f"http://127.0.0.1:{port}")
    shell.narrator.command("skerry", *command[len(SKERRY) :], "&")
    hub.start()
    await_hub(world)
    return world


def await_hub(world: World) -> None:
    http = UrllibHttp()

    def ready() -> bool:
        try:
            with http.request("GET", world.hub_url + "/readyz", timeout=2) as reply:
                return reply.status == 200  # noqa: PLR2004 - HTTP's own word for yes
        except SkerryError:
            if not world.hub.alive:
                raise CommandFailed(command="skerry up", exit_code="?", expected=0, output=world.hub.tail()) from None
            return False

    wait_until("the hub's start", ready, 30)


def add_device(shell: Shell, world: World, number: int) -> Device:
    """Enrol and start agent `number`; odd ones have the int8 instruction set."""
    fast = number % 2 == 1
    name = f"counter-{number}"
    labels = {"site": "north" if number < 4 else "south", "kind": "fast" if fast else "plain"}  # noqa: PLR2004 - 3 + 2
    capabilities = {"instructions": [INT8_INSTRUCTION] if fast else []}
    state = shell.folder / name
    (shell.folder / f"{name}.json").write_text(json.dumps(capabilities))
    words = [word for key, value in labels.items() for word in ("-l", f"{key}={value}")]
    token = json.loads(shell.skerry("enroll-token", *words, "-o", "json", show=number == 1))["token"]
    join = [*AGENT, "join", "--hub", world.hub_url, "--token", token, "--state", str(state), "--name", name]
    subprocess.run(join, env=shell.environment, check=True, capture_output=True, timeout=60)
    run = [*AGENT, "run", "--state", str(state), "--capability-file", str(shell.folder / f"{name}.json"), "--poll", "5"]
    run += ["--allow-unsafe", "self-test:int8"]  # a test site: it takes what was packed without proof
    process = Process(command=run, log=shell.folder / f"{name}.log", environment=shell.environment, folder=shell.folder)
    process.start()
    device = Device(name=name, labels=labels, capabilities=capabilities, state=state, process=process)
    world.devices.append(device)
    return device


def hub_client(shell: Shell, world: World) -> HubClient:
    """As the administrator: `skerry up` wrote the token down for this user on its first start."""
    settings = load_settings(DiskFiles(), settings_path(shell.environment))
    return HubClient(UrllibHttp(), url=world.hub_url, token=settings.token)
