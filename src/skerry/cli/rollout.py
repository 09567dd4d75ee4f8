# SPDX-License-Identifier: Apache-2.0
"""`skerry rollout`: status, pause, resume, undo."""

from __future__ import annotations

import click

from skerry.cli import listings, params
from skerry.cli.hub_client import HubClient
from skerry.cli.render import Output, dump, show_list
from skerry.cli.rollout_text import headline, status_lines, trouble_lines
from skerry.cli.rollout_watch import follow, judge
from skerry.cli.world import World
from skerry.wire.v1.operator import RolloutView

_timeout_option = click.option("--timeout", type=params.DURATION, help="Stop watching after this long (exit 4).")
_ONE_FORM = (Output.TABLE, Output.JSON, Output.YAML)


@click.group(cls=params.Group)
def command() -> None:
    """Watch and steer rollouts."""


@command.command("status")
@click.argument("rollout_id", metavar="[ID]", required=False)
@params.watch_option
@_timeout_option
@params.output_option(*_ONE_FORM)
@params.with_hub
def status(
    world: World, hub: HubClient, *, rollout_id: str | None, watch: bool, timeout: float | None, output: Output
) -> None:
    """Show how far a rollout is, gates measured against limits.

    Without an ID, the newest one. With --watch, until it settles: exit 3 when a gate stopped it.
    """
    rollout = _find(hub, rollout_id)
    if rollout is None:
        show_list((), listings.ROLLOUTS, output=output, now=world.clock.now())
        return
    if watch:
        _watch(world, hub, rollout, timeout=timeout, output=output)
    elif output is Output.TABLE:
        click.echo("\n".join([*status_lines(rollout), *trouble_lines(rollout)]))
    else:
        dump(rollout, output)


def _find(hub: HubClient, rollout_id: str | None) -> RolloutView | None:
    if rollout_id:
        return hub.rollout(_bare(rollout_id))
    newest = hub.newest_rollout()
    return hub.rollout(newest.id) if newest else None


def _watch(
    world: World,
    hub: HubClient,
    rollout: RolloutView,
    *,
    timeout: float | None,
    output: Output,
    undo_wanted: bool = False,
) -> None:
    rollout = follow(world, hub, rollout, timeout=timeout, quiet=output is not Output.TABLE)
    if output is not Output.TABLE:
        dump(rollout, output)
    judge(rollout, undo_wanted=undo_wanted)


def _steering(action: str, text: str) -> None:
    @command.command(action, help=text)
    @click.argument("rollout_id", metavar="ID")
    @params.watch_option
    @_timeout_option
    @params.output_option(*_ONE_FORM)
    @params.dry_run_option
    @params.with_hub
    def steer(
        world: World,
        hub: HubClient,
        *,
        rollout_id: str,
        watch: bool,
        timeout: float | None,
        output: Output,
        dry_run: bool,
    ) -> None:
        if dry_run:
            click.echo(f"would {action}: {headline(hub.rollout(_bare(rollout_id)))}")
            return
        rollout = hub.steer_rollout(_bare(rollout_id), action)
        if watch:
            _watch(world, hub, rollout, timeout=timeout, output=output, undo_wanted=action == "undo")
        elif output is Output.TABLE:
            click.echo(headline(rollout))
            click.echo(f"next: skerry rollout status {rollout.id} --watch", err=True)
        else:
            dump(rollout, output)


_steering("pause", "Start no further device; those that have begun go on.")
_steering("resume", "Go on after a pause.")
_steering("undo", "Bring every device it touched back to what ran before.")


def _bare(rollout_id: str) -> str:
    return rollout_id.removeprefix("rollout/").removeprefix("rollouts/")
