# SPDX-License-Identifier: Apache-2.0
"""`skerry agent`: the same agent as `skerry-agent`, which is what a device's service runs (it loads no click)."""

from __future__ import annotations

import platform
from pathlib import Path

import click

from skerry.agent import main as agent
from skerry.agent.join import JoinRequest
from skerry.agent.status import Status
from skerry.cli import params
from skerry.cli.render import Output, aligned, clean, dump, pairs

_state_option = click.option(
    "--state", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The device's state folder."
)


@click.group(cls=params.Group)
def command() -> None:
    """Join, run and inspect the agent of this device."""


@command.command("join")
@click.option("--hub", required=True, envvar="SKERRY_HUB", metavar="URL", help="Hub to belong to.")
@click.option("--token", required=True, metavar="TOKEN", help="One-time token of `skerry enroll-token`.")
@_state_option
@click.option("--name", default=platform.node, show_default="the host's name", help="What to call this device.")
@params.labels_option
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Authority of the hub's certificate.",
)
@params.dry_run_option
def join(
    *, hub: str, token: str, state: Path, name: str, labels: dict[str, str], ca: Path | None, dry_run: bool
) -> None:
    """Make this machine's key and enrol it, once.

    The private key is made here and never leaves the state folder.
    """
    if dry_run:
        click.echo(f"would make a key in {state} and enrol as {name} at {hub}")
        return
    request = JoinRequest(
        hub=hub.rstrip("/"), token=token, name=name or "device", labels=labels, ca_file=str(ca.resolve()) if ca else ""
    )
    device = agent.join(state, request)
    click.echo(f"enrolled as {device.name} ({device.device_id}) at {device.hub}")
    click.echo(f"next: skerry agent run --state {state}    (or the skerry-agent service)", err=True)


@command.command("run")
@_state_option
@click.option("--listen", metavar="HOST", default="127.0.0.1", show_default=True, help="Address runners serve on.")
@click.option("--port-base", type=int, metavar="PORT", help="First port to use; without it, any.")
@click.option("--address", metavar="HOST:PORT", help="One more address, where every model answers by its name.")
@click.option("--no-sandbox", is_flag=True, help="Let runners reach files, network and programs; for finding faults.")
@click.option("--shared-memory", is_flag=True, help="Clients on this machine may name regions of its shared memory.")
@click.option("--access-log", is_flag=True, help="A line for every request, in the runners' logs.")
@click.option("--poll", type=params.DURATION, help="How long one question to the hub waits.")
@click.option("--once", is_flag=True, help="Ask, reconcile, report, then stop.")
@click.option("--memory-limit", type=click.IntRange(min=0), metavar="MIB", help="Most private memory of a runner.")
@click.option(
    "--capability-file", type=click.Path(path_type=Path), metavar="JSON", help="Capabilities that cannot be measured."
)
@click.option(
    "--allow-unsafe",
    multiple=True,
    metavar="CHECK",
    help="Take bundles packed without this check, e.g. self-test:int8.",
)
@click.option("--line", multiple=True, metavar="NAME", help="Take bundles of this product line only.")
@click.option("--json-logs", is_flag=True, help="One JSON object a line on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def run(
    *,
    json_logs: bool,
    verbose: bool,
    once: bool,
    no_sandbox: bool,
    shared_memory: bool,
    access_log: bool,
    allow_unsafe: tuple[str, ...],
    line: tuple[str, ...],
    **valued: object,
) -> int:
    """Follow the hub and serve, until SIGTERM or Ctrl-C."""
    before = [flag for flag, given in (("--json-logs", json_logs), ("--verbose", verbose)) if given]
    switches = {
        "--once": once,
        "--no-sandbox": no_sandbox,
        "--shared-memory": shared_memory,
        "--access-log": access_log,
    }
    after = [flag for flag, given in switches.items() if given]
    after += [f"--allow-unsafe={check}" for check in allow_unsafe] + [f"--line={name}" for name in line]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in valued.items() if value is not None]
    return agent.main([*before, "run", *after, *options])


@command.command("status")
@_state_option
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
def status(*, state: Path, output: Output) -> None:
    """Say what this device runs and what it last heard. Needs no hub."""
    found = agent.status(state)
    if output is Output.TABLE:
        click.echo("\n".join(status_lines(found)))
    else:
        dump(found, output)


def status_lines(found: Status) -> list[str]:
    reach = {True: "reachable", False: "not reachable", None: "not asked yet"}[found.hub_reachable]
    facts = {
        "Device": f"{found.name} ({found.device_id})",
        "Agent": f"running, pid {found.pid}" if found.running else "stopped",
        "Hub": f"{found.hub} {reach}",
        "Assignment": str(found.assignment_sequence),
        "Outbox": f"{found.outbox} waiting",
        "Issues": ", ".join(found.issues) or "none",
        **({"All models": f"http://{found.address}"} if found.address else {}),
        **({"Shared memory": "clients may name the system's"} if found.shared_memory else {}),
    }
    rows = [
        [work.name, work.state, work.bundle or work.committed or "-", work.variant or "-", work.url or "-"]
        for work in found.workloads
    ]
    if not rows:
        next_step = "the hub decides: skerry deploy" if found.running else "the agent is not running: skerry agent run"
        return [*pairs(facts), "", f"no workload yet; {next_step}"]
    unix = [clean(f"  {work.name}: also at {work.unix}") for work in found.workloads if work.unix]
    limits = [clean(f"  {work.name}: kept to {work.limits}") for work in found.workloads if work.limits]
    problems = [clean(f"  {work.name}: {work.problem}") for work in found.workloads if work.problem]
    table = aligned([["WORKLOAD", "STATE", "BUNDLE", "VARIANT", "SERVES AT"], *rows])
    return [*pairs(facts), "", *map(clean, table), *unix, *limits, *problems]
