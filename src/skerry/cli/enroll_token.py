# SPDX-License-Identifier: Apache-2.0
"""`skerry enroll-token`."""

from __future__ import annotations

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.listings import labels_text
from skerry.cli.render import Output, dump
from skerry.cli.times import brief
from skerry.cli.world import World
from skerry.wire.v1.operator import EnrolmentTokenRequest


@click.command()
@params.labels_option
@click.option("--ttl", type=params.DURATION, default="1h", show_default=True, help="How long the token is good for.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.dry_run_option
@params.with_hub
def command(world: World, hub: HubClient, *, labels: dict[str, str], ttl: float, output: Output, dry_run: bool) -> None:
    """Make a one-time token that lets one device join.

    The device gets the labels given here. The token alone goes to stdout, so that a script can capture it.
    """
    if dry_run:
        click.echo(f"would make a token for one device with labels {labels_text(labels)}, good for {brief(ttl)}")
        return
    token = hub.make_enrolment_token(EnrolmentTokenRequest(labels=labels, ttl_seconds=ttl))
    if output is not Output.TABLE:
        dump(token, output)
        return
    click.echo(token.token)
    click.echo(f"good for one device within {brief(token.expires - world.clock.now())}; shown only now", err=True)
    click.echo(f"on the device: skerry agent join --hub {hub.url} --token {token.token} --state DIR", err=True)
