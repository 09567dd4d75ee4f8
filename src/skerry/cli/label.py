# SPDX-License-Identifier: Apache-2.0
"""`skerry label`: labels decide which fleets a device belongs to."""

from __future__ import annotations

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.listings import labels_text
from skerry.cli.world import World
from skerry.wire.v1.operator import DevicePatch


@click.command(epilog="\b\n  skerry label press-1 line=body-shop stage-\n")
@click.argument("device")
@click.argument("changes", nargs=-1, required=True, metavar="K=V|K-...")
@params.dry_run_option
@params.with_hub
def command(_: World, hub: HubClient, *, device: str, changes: tuple[str, ...], dry_run: bool) -> None:
    """Set or remove labels of a device."""
    labels = parse_changes(changes)
    found = hub.device(device.removeprefix("device/"))
    if dry_run:
        after = {key: value for key, value in {**found.labels, **labels}.items() if value is not None}
        click.echo(f"would label device {found.name}: {labels_text(found.labels)} -> {labels_text(after)}")
        return
    changed = hub.patch_device(found.id, DevicePatch(labels=labels))
    click.echo(f"device {changed.name}: {labels_text(changed.labels)}")


def parse_changes(changes: tuple[str, ...]) -> dict[str, str | None]:
    """`k=v` sets, `k-` removes (None). Raises click.BadParameter."""
    labels: dict[str, str | None] = {}
    for change in changes:
        if change.endswith("-") and "=" not in change:
            labels[change[:-1]] = None
        else:
            labels.update(params.parse_labels([change]))
    return labels
