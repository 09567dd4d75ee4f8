# SPDX-License-Identifier: Apache-2.0
"""The table of verbs: what `skerry --help` prints, without importing a single one of them.

A verb's module is `skerry.cli.<verb>` with `-` as `_`; it holds a click command or group called `command`, whose short
help is the line here (tested).
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    name: str
    section: str
    help: str
    module: str


def _verb(name: str, section: str, text: str) -> Verb:
    return Verb(name, section, text, "skerry.cli." + name.replace("-", "_"))


BUILD, SHIP, FLEET, SYSTEM = "BUILD", "SHIP", "FLEET", "SYSTEM"
SECTIONS = (BUILD, SHIP, FLEET, SYSTEM)

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        _verb("init", BUILD, "Write a project file skerry.yaml for a model"),
        _verb("pack", BUILD, "Pack a project into a bundle"),
        _verb("verify", BUILD, "Check a bundle: digests, manifest, evidence, licences"),
        _verb("bench", BUILD, "Measure a bundle, a model file or a server; or two, paired"),
        _verb("keys", SHIP, "Make and look after the catalogue's keys"),
        _verb("push", SHIP, "Sign a bundle and put it into a hub's catalogue"),
        _verb("deploy", SHIP, "Roll a model out to a fleet, in stages, behind gates"),
        _verb("rollout", SHIP, "Watch and steer rollouts"),
        _verb("get", FLEET, "List devices, fleets, models, rollouts and more"),
        _verb("describe", FLEET, "Show everything about one thing, or about a bundle file"),
        _verb("fleet", FLEET, "Name a set of devices by their labels"),
        _verb("label", FLEET, "Set or remove labels of a device"),
        _verb("enroll-token", FLEET, "Make a one-time token that lets one device join"),
        _verb("revoke", FLEET, "Shut a device out for good"),
        _verb("delete", FLEET, "Forget a device or a user"),
        _verb("logs", FLEET, "Show what a device reported"),
        _verb("audit", FLEET, "Fetch a device's history and verify its chain"),
        _verb("up", SYSTEM, "Run a hub on this machine"),
        _verb("agent", SYSTEM, "Join, run and inspect the agent of this device"),
        _verb("top", SYSTEM, "Watch the models that run on this machine"),
        _verb("login", SYSTEM, "Remember a hub's address and token"),
        _verb("user", SYSTEM, "Give people and programs their own tokens"),
        _verb("doctor", SYSTEM, "Find out what is wrong with this machine or its hub"),
        _verb("demo", SYSTEM, "Run the whole loop on this machine with real data"),
    )
}

_HEAD = """Usage: skerry [--debug] VERB ...

  Run, update and govern AI models on fleets of edge devices.
"""

_TAIL = """
  skerry VERB --help     what a verb takes
  skerry --version       the version
  --debug                show the traceback of an unexpected error
"""


def help_text() -> str:
    """What `skerry --help` prints: sections in their order, verbs in the order of the table."""
    width = max(map(len, VERBS)) + 2
    lines = [_HEAD]
    for section in SECTIONS:
        verbs = [verb for verb in VERBS.values() if verb.section == section]
        lines.append(section)
        lines.extend(f"  {verb.name:<{width}}{verb.help}" for verb in verbs)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n" + _TAIL
