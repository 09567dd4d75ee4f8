# SPDX-License-Identifier: Apache-2.0
"""`skerry fleet`: a fleet is a name for a label selector."""

from __future__ import annotations

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.listings import labels_text
from skerry.cli.world import World
from skerry.wire.v1.operator import FleetSpec


@click.group(cls=params.Group)
def command() -> None:
    """Name a set of devices by their labels."""


@command.command("set")
@click.argument("name")
@params.selector_option
@click.option("--all", "everything", is_flag=True, help="Every device, now and later.")
@params.dry_run_option
@params.with_hub
def set_fleet(
    _: World, hub: HubClient, *, name: str, selector: dict[str, str], everything: bool, dry_run: bool
) -> None:
    """Create a fleet, or change what it selects."""
    if bool(selector) == everything:
        raise click.UsageError("say which devices: -l key=value, or --all for every device")
    if dry_run:
        matching = hub.devices(selector)
        click.echo(f"would set fleet {name} to {labels_text(selector)}: {len(matching)} device(s) match now")
        return
    fleet = hub.put_fleet(name, FleetSpec(selector=selector))
    click.echo(f"fleet {fleet.name} set: {fleet.devices} device(s) match now")
    if not fleet.devices:
        click.echo("next: skerry label DEVICE key=value, or skerry enroll-token -l key=value for new devices", err=True)
        return
    click.echo(f"next: skerry deploy MODEL:VERSION --workload NAME --fleet {fleet.name} --canary 1 --watch", err=True)
