# SPDX-License-Identifier: Apache-2.0
"""`skerry revoke`: a stolen device gets no token, no assignment and no blob any more."""

from __future__ import annotations

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.world import World


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="DEVICE")
@params.yes_option
@params.dry_run_option
@params.with_hub
def command(_: World, hub: HubClient, *, words: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Shut a device out for good.

    It keeps running what it has committed, but the hub refuses it from now on. Its history stays.
    """
    for name in _names(words):
        device = hub.device(name)
        if dry_run:
            click.echo(f"would revoke device {device.name} ({device.id})")
            continue
        params.confirm(f"Revoke device {device.name} for good?", what=f"revoking {device.name}", yes=yes)
        hub.revoke_device(device.id)
        click.echo(f"device {device.name} revoked")


def _names(words: tuple[str, ...]) -> list[str]:
    if words[0] in {"device", "devices"}:
        words = words[1:]
    if not words:
        raise click.UsageError("say which device")
    return [word.removeprefix("device/") for word in words]
