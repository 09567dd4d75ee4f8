# SPDX-License-Identifier: Apache-2.0
"""`skerry login`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from skerry.cli import params
from skerry.cli.settings import Settings, settings_path
from skerry.cli.world import World, pass_world
from skerry.errors import ConfigError


@click.command()
@click.argument("url")
@click.option("--token", envvar="SKERRY_TOKEN", metavar="TOKEN", help="Operator token; `-` reads it from stdin.")
@click.option(
    "--ca", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Authority of its certificate."
)
@params.dry_run_option
@pass_world
def command(world: World, *, url: str, token: str | None, ca: str | None, dry_run: bool) -> None:
    """Remember a hub's address and token.

    Written to ~/.config/skerry/config.json, readable by you alone, after the hub has accepted the token.
    """
    secret = _token(token)
    authority = str(Path(ca).resolve()) if ca else ""
    summary = world.hub(hub=url, token=secret, ca=authority).summary()
    path = settings_path(world.environ)
    if dry_run:
        click.echo(f"would remember {url} in {path}: {summary.devices} device(s), version {summary.version}")
        return
    world.remember(Settings(hub=url.rstrip("/"), token=secret, ca=authority))
    click.echo(f"hub {url}: version {summary.version}, {summary.devices} device(s); remembered in {path}")
    if summary.demo_trust:
        click.echo("warning: this hub runs on demo keys; do not put real devices on it", err=True)


def _token(given: str | None) -> str:
    if given == "-":
        given = sys.stdin.readline().strip()
    if not given and sys.stdin.isatty():
        given = click.prompt("Token", hide_input=True, err=True)
    if not given:
        raise ConfigError(where="--token", problem="no token; give --token, SKERRY_TOKEN or `--token -` and a pipe")
    return str(given)
