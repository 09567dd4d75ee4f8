# SPDX-License-Identifier: Apache-2.0
"""`skerry describe TYPE/NAME`: everything the hub knows about one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import click
from msgspec import Struct

from skerry.cli import listings, params
from skerry.cli.get import pick_models
from skerry.cli.hub_client import HubClient
from skerry.cli.progress import size_text
from skerry.cli.render import Output, aligned, clean, dump, pairs
from skerry.cli.rollout_text import describe_rollout
from skerry.cli.times import ago, iso
from skerry.cli.world import World
from skerry.wire.v1.operator import DeviceView, DeviceWorkload, ModelView


class Description(NamedTuple):
    value: Struct  # for -o json and yaml
    lines: list[str]


def looks_remote(words: Sequence[str]) -> bool:
    """Whether the words name something on a hub (TYPE/NAME or TYPE NAME) rather than a file."""
    try:
        _, names = params.parse_references(words)
    except click.UsageError:
        return False
    return bool(names)


def describe_words(world: World, hub: HubClient, words: Sequence[str], *, output: Output) -> None:
    """Describe TYPE/NAME or TYPE NAME on stdout. Raises click.UsageError, NotFound and whatever the road gives."""
    kind, names = params.parse_references(words)
    if not names or kind not in _DESCRIBERS:
        raise click.UsageError(f"describe takes one of {', '.join(_DESCRIBERS)} and a name, or a bundle file")
    for name in names:
        described = _DESCRIBERS[kind](hub, name, world.clock.now())
        if output is Output.TABLE:
            click.echo("\n".join(described.lines))
        else:
            dump(described.value, output)


def _device(hub: HubClient, name: str, now: float) -> Description:
    device = hub.device(name)
    can = device.capabilities
    facts = {
        "Name": device.name,
        "Id": device.id,
        "Status": listings.device_status(device, now),
        "Seen": f"{ago(device.last_seen, now)}" + (f" ({iso(device.last_seen)})" if device.last_seen else ""),
        "Enrolled": iso(device.enrolled),
        "Labels": listings.labels_text(device.labels),
        "Machine": f"{can.arch}, {can.cpus} CPUs, {can.memory_mib} MiB, {can.os}".rstrip(", "),
        "Engines": ", ".join(f"{engine} {version}" for engine, version in sorted(can.runtimes.items())),
        "Accelerators": ", ".join(f"{item.kind} {item.name}".strip() for item in can.accelerators),
        "Agent": can.agent_version,
        "Assignment": str(device.assignment_sequence),
        "Issues": ", ".join(device.issues) or "none",
    }
    return Description(device, [*pairs(facts), "", *_workloads(device, now)])


def _workloads(device: DeviceView, now: float) -> list[str]:
    if not device.workloads:
        return ["Workloads: none yet"]
    header = ["WORKLOAD", "BUNDLE", "STATE", "VARIANT", "P50 MS", "P95 MS", "ERRORS", "SAID"]
    lines = ["Workloads:", *("  " + line for line in aligned([header, *(_row(w, now) for w in device.workloads)]))]
    reasons = [w for w in device.workloads if w.reason or w.detail]
    return [*lines, *(clean(f"  {w.workload}: {w.reason} {w.detail}".rstrip()) for w in reasons)]


def _row(workload: DeviceWorkload, now: float) -> list[str]:
    return [
        workload.workload,
        workload.bundle or workload.digest[:19],
        workload.state,
        workload.variant or "-",
        listings.number(workload.latency_p50_ms, digits=2),
        listings.number(workload.latency_p95_ms, digits=2),
        "-" if workload.error_rate is None else f"{workload.error_rate:.1%}",
        ago(workload.at or None, now),
    ]


def _fleet(hub: HubClient, name: str, now: float) -> Description:
    fleet = hub.fleet(name)
    facts = {"Name": fleet.name, "Selector": listings.labels_text(fleet.selector), "Devices": str(fleet.devices)}
    members = [[device.name, listings.device_status(device, now)] for device in hub.devices(fleet.selector)]
    return Description(fleet, [*pairs(facts), *("  " + line for line in (aligned(members) if members else []))])


def _model(hub: HubClient, name: str, now: float) -> Description:
    model = max(pick_models(hub.models(), [name]), key=lambda model: model.bundle.release_seq)
    return Description(model, pairs(_model_facts(model, now)))


def _model_facts(model: ModelView, now: float) -> Mapping[str, str]:
    return {
        "Model": model.bundle.name,
        "Line": model.bundle.line,
        "Release": str(model.bundle.release_seq),
        "Digest": model.bundle.digest,
        "Target": model.bundle.target,
        "Size": size_text(model.size),
        "Variants": ", ".join(model.variants),
        "Published": f"{ago(model.published, now)} ({iso(model.published)})",
        "Quarantined": "yes" if model.quarantined else "no",
    }


def _rollout(hub: HubClient, name: str, now: float) -> Description:
    rollout = hub.rollout(name)
    events = [[iso(event.at), event.kind, clean(event.detail)] for event in hub.rollout_events(name)]
    tail = ["", "Events:", *("  " + line for line in aligned(events))] if events else []
    return Description(rollout, [*describe_rollout(rollout, now), *tail])


_DESCRIBERS: dict[str, Callable[[HubClient, str, float], Description]] = {
    "device": _device,
    "fleet": _fleet,
    "model": _model,
    "rollout": _rollout,
}
