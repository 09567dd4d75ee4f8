# SPDX-License-Identifier: Apache-2.0
"""`skerry delete`."""

from __future__ import annotations

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.world import World


@click.command(epilog="\b\n  skerry delete device press-1\n  skerry delete user/anna --yes\n")
@click.argument("words", nargs=-1, required=True, metavar="device|user NAME...")
@params.yes_option
@params.dry_run_option
@params.with_hub
def command(_: World, hub: HubClient, *, words: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Forget a device or a user.

    A deleted device cannot come back without a new enrolment token; use `skerry revoke` to shut out a stolen one.
    """
    kind, names = params.parse_references(words)
    if kind not in {"device", "user"}:
        raise click.UsageError(f"a {kind} cannot be deleted; only devices and users can")
    if not names:
        raise click.UsageError(f"say which {kind}")
    for name in names:
        key = hub.device(name).id if kind == "device" else name
        if dry_run:
            click.echo(f"would delete {kind} {name}")
            continue
        params.confirm(f"Delete {kind} {name}?", what=f"deleting {name}", yes=yes)
        if kind == "device":
            hub.delete_device(key)
        else:
            hub.delete_user(key)
        click.echo(f"{kind} {name} deleted")
