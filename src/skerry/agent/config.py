# SPDX-License-Identifier: Apache-2.0
"""How an agent is run; everything that is not state."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from skerry.agent.supervise.process import COMMAND, Timing
from skerry.trust.decision import InstallPolicy

SILENCE = 600.0  # longer than the slowest start of a runner


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Times in seconds. `poll` None = what the hub asked for at enrolment."""

    state: Path
    listen_host: str = "127.0.0.1"
    port_base: int = 0
    sandbox: bool = True  # of runners
    shared_memory: bool = False  # clients may name regions of the system's shared memory
    access_log: bool = False  # of every request, in the runners' logs
    address: str = ""  # HOST:PORT of the whole box; empty = none
    poll: float | None = None
    once: bool = False
    capability_file: Path | None = None
    memory_limit_mib: int = 0
    refresh: float = 900.0  # the catalogue, when nothing else asks for it
    figures: float = 5.0  # how long one figures report covers
    silence: float = SILENCE  # a thread that shows no life for so long, and a long-poll more, ends the agent
    runner_command: tuple[str, ...] = COMMAND
    timing: Timing = field(default_factory=Timing)
    policy: InstallPolicy = field(default_factory=InstallPolicy)
