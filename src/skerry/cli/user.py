# SPDX-License-Identifier: Apache-2.0
"""`skerry user`: tokens of the operator API."""

from __future__ import annotations

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.render import Output, dump
from skerry.cli.world import World
from skerry.wire.v1.operator import Role


@click.group(cls=params.Group)
def command() -> None:
    """Give people and programs their own tokens."""


@command.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it may do.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.dry_run_option
@params.with_hub
def add(_: World, hub: HubClient, *, name: str, role: str, output: Output, dry_run: bool) -> None:
    """Add a user and show its token, once.

    viewer reads; operator also publishes, deploys and enrols; admin also revokes and manages users.
    """
    if dry_run:
        click.echo(f"would add user {name} with role {role}")
        return
    user = hub.add_user(name, Role(role))
    if output is not Output.TABLE:
        dump(user, output)
        return
    click.echo(user.token)
    click.echo(f"token of {user.name} ({user.role}); shown only now", err=True)
    click.echo(f"next: skerry login {hub.url} --token TOKEN", err=True)
