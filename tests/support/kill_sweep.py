# SPDX-License-Identifier: Apache-2.0
"""kill -9 of hub and agents at random instants while rollouts run, and what must hold afterwards.

A record is wrong when the hub and a device disagree once all is quiet: what runs, what was committed, history, results.
A model is half-installed when a bundle folder of a device does not hold exactly what its manifest names, at any instant.
"""

from __future__ import annotations

import random
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from skerry.bundle.digest import digest_of
from skerry.bundle.unpacked import read_config
from skerry.errors import SkerryError
from skerry.trust.chain import Broken, verify_chain
from skerry.wire.v1.operator import RolloutStatus
from skerry.wire.v1.report import WorkloadState
from support.stack import MODEL, WORKLOAD, AgentChild, Stack, wait_until

TERMINAL = {RolloutStatus.DONE, RolloutStatus.UNDONE, RolloutStatus.PAUSED}


@dataclass(kw_only=True)
class Findings:
    kills: dict[str, int] = field(default_factory=lambda: {"hub": 0, "agent": 0})
    rollouts: int = 0
    undone: int = 0
    bad_versions: int = 0
    good_undone: list[str] = field(
        default_factory=list
    )  # no fault, but worth a look: why did a good version not make it?
    wrong_records: list[str] = field(default_factory=list)
    half_installed: list[str] = field(default_factory=list)
    answers: int = 0
    refused_connections: int = 0


def bundle_folders(agent: AgentChild) -> list[Path]:
    """Visible bundle folders; names that start with a dot are work in progress and never used."""
    found = (path.parent for path in agent.state.rglob("skerry.json"))
    return [
        folder for folder in found if not any(part.startswith(".") for part in folder.relative_to(agent.state).parts)
    ]


def check_folders(agent: AgentChild, findings: Findings) -> None:
    for folder in bundle_folders(agent):
        try:
            config = read_config(folder)
            for file in config.files:
                if digest_of((folder / file.path).read_bytes()) != file.digest:
                    findings.half_installed.append(f"{agent.name}: {folder.name}/{file.path} has other content")
        except (SkerryError, OSError) as error:
            if folder.exists():  # removed while we looked is no fault
                findings.half_installed.append(f"{agent.name}: {folder.name}: {error}")


def check_records(stack: Stack, expected: str, findings: Findings) -> None:
    """Once quiet: hub and devices say the same, and it is `expected` (name:version) wherever nothing failed."""
    client = stack.client()
    for agent in stack.agents:
        view = client.device(agent.id)
        mine = agent.workload()
        told = next((work for work in view.workloads if work.workload == WORKLOAD), None)
        if told is None or mine.get("digest") != told.running:
            findings.wrong_records.append(f"{agent.name} runs {mine.get('bundle')}, the hub says {told}")
            continue
        if mine.get("bundle") != expected or mine.get("state") != "serving":
            findings.wrong_records.append(
                f"{agent.name} is {mine.get('state')} with {mine.get('bundle')}, not {expected}"
            )
        if told.state is WorkloadState.COMMITTED and told.digest != told.running:
            findings.wrong_records.append(f"{agent.name}: hub holds {told.digest} committed, {told.running} running")
        history = client.history(agent.id)
        verdict = verify_chain(history.entries, device_id=agent.id, public_key=history.public_key)
        if isinstance(verdict, Broken):
            findings.wrong_records.append(f"{agent.name}: history broken at {verdict.n}: {verdict.problem}")
        if served_version(mine.get("url", "")) != expected.partition(":")[2]:
            findings.wrong_records.append(f"{agent.name} serves {served_version(mine.get('url', ''))}, says {expected}")


def served_version(url: str) -> str:
    """What really answers on the device's socket."""
    try:
        with urllib.request.urlopen(f"{url}/v2/models/{MODEL}", timeout=5) as reply:
            versions = msgspec.json.decode(reply.read())["versions"]
            return str(versions[0])
    except (OSError, ValueError) as error:
        return f"nothing ({error})"


class Sweep:
    """Kills until `kills` are done; every `per_rollout` kills a new version is rolled out and, once quiet, checked."""

    def __init__(self, stack: Stack, *, kills: int, seed: int, per_rollout: int = 5) -> None:
        self._stack = stack
        self._kills = kills
        self._per_rollout = per_rollout
        self._random = random.Random(seed)
        self._pause = threading.Event()
        self._good = ""
        self.findings = Findings()

    def run(self) -> Findings:
        self._roll_out(wrong=False, kills=0)
        done = 0
        while done < self._kills:
            count = min(self._per_rollout, self._kills - done)
            self._roll_out(wrong=self._random.random() < 0.2, kills=count)
            done += count
        return self.findings

    def _roll_out(self, *, wrong: bool, kills: int) -> None:
        stack, findings = self._stack, self.findings
        version = stack.publish(wrong=wrong)
        rollout = stack.deploy(version)
        findings.rollouts += 1
        for _ in range(kills):
            self._pause.wait(self._random.uniform(0.02, 1.2))
            self._kill_one()
        stack.await_ready()
        wait_until(f"rollout of {version} ending", lambda: stack.client().rollout(rollout.id).status in TERMINAL, 120)
        ended = stack.client().rollout(rollout.id)
        status = ended.status
        findings.bad_versions += wrong
        findings.undone += status is RolloutStatus.UNDONE
        if not wrong and status is not RolloutStatus.DONE:
            findings.good_undone.append(f"{version}: {status}: {ended.reason}")
        if wrong and status is not RolloutStatus.UNDONE:
            findings.wrong_records.append(f"{version} gives wrong answers and its rollout is {status}")
        if status is RolloutStatus.DONE:
            self._good = version
        self._settle()
        for agent in stack.agents:
            check_folders(agent, findings)
        check_records(stack, self._good, findings)

    def _settle(self) -> None:
        """Until every agent is serving and has told the hub everything. What never settles shows up as a wrong record."""
        end = time.monotonic() + 30
        while time.monotonic() < end and not all(self._quiet(agent) for agent in self._stack.agents):
            self._pause.wait(0.1)

    def _quiet(self, agent: AgentChild) -> bool:
        status, mine = agent.status(), agent.workload()
        told = [work for work in self._stack.client().device(agent.id).workloads if work.workload == WORKLOAD]
        return (
            status.get("outbox") == 0
            and mine.get("state") == "serving"
            and not mine.get("attempt")
            and bool(told)
            and told[0].running == mine.get("digest")
            and mine.get("bundle") == self._good
        )

    def _kill_one(self) -> None:
        victim = self._random.choice(["hub", "agent", "agent"])
        child = self._stack.hub if victim == "hub" else self._random.choice(self._stack.agents)
        child.kill()
        self.findings.kills[victim] += 1
        if isinstance(child, AgentChild):
            check_folders(child, self.findings)
        child.start()
