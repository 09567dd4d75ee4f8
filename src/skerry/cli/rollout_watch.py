# SPDX-License-Identifier: Apache-2.0
"""Following a rollout until it settles: redrawn in place on a terminal, a line per change everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from skerry.cli.hub_client import HubClient
from skerry.cli.render import colourful
from skerry.cli.rollout_text import changes, status_lines, trouble_lines
from skerry.cli.world import World
from skerry.errors import GateFailed, PartialResult, RoadError, WaitTimedOut
from skerry.wire.v1.operator import RolloutStatus, RolloutView, StageStatus

_POLL_SECONDS = 1.0
_HUB_MAY_BE_AWAY_SECONDS = 120.0
"""A hub that restarts goes on with the rollout: the watch outlives it for this long."""

Show = Callable[[RolloutView], None]


def settled(rollout: RolloutView) -> bool:
    """Nothing more happens by itself. A pause by a person is not the end; a pause by a gate is."""
    if rollout.status is RolloutStatus.PAUSED:
        return stopped_by_gate(rollout)
    return rollout.status in {RolloutStatus.DONE, RolloutStatus.UNDONE}


def stopped_by_gate(rollout: RolloutView) -> bool:
    return any(stage.status is StageStatus.FAILED for stage in rollout.stages) or any(
        gate.passed is False for stage in rollout.stages for gate in stage.gates
    )


def follow(world: World, hub: HubClient, rollout: RolloutView, *, timeout: float | None, quiet: bool) -> RolloutView:
    """The rollout as it settled. Raises WaitTimedOut, or the RoadError that lasted. Ctrl-C ends the watch, not the rollout."""
    try:
        return _follow(world, hub, rollout, timeout=timeout, quiet=quiet)
    except KeyboardInterrupt:
        click.echo(f"the rollout goes on; skerry rollout status {rollout.id} --watch", err=True)
        raise


def _follow(world: World, hub: HubClient, rollout: RolloutView, *, timeout: float | None, quiet: bool) -> RolloutView:
    started = heard = world.clock.monotonic()
    away = False
    with _display(quiet=quiet) as show:
        while True:
            show(rollout)
            if settled(rollout):
                return rollout
            if timeout is not None and world.clock.monotonic() - started >= timeout:
                raise WaitTimedOut(what=f"rollout {rollout.id}", seconds=f"{timeout:g}")
            world.wait(_POLL_SECONDS)
            try:
                rollout = hub.rollout(rollout.id)
                heard = world.clock.monotonic()
                away = False
            except RoadError as error:
                if world.clock.monotonic() - heard > _HUB_MAY_BE_AWAY_SECONDS:
                    raise
                if not away:
                    click.echo(f"{error}; asking again, the rollout needs no watcher", err=True)
                away = True


def judge(rollout: RolloutView, *, undo_wanted: bool = False) -> None:
    """Raises GateFailed for a rollout that was stopped, PartialResult for one that is done but not everywhere."""
    what = f"rollout {rollout.id} of {rollout.bundle.name}"
    if rollout.status is RolloutStatus.UNDONE:
        if not undo_wanted:
            raise GateFailed(what=what, detail=f"undone: {rollout.reason or 'no reason given'}")
    elif rollout.status is RolloutStatus.PAUSED:
        raise GateFailed(what=what, detail=f"paused: {rollout.reason or 'a gate failed'}")
    elif rollout.status is RolloutStatus.DONE:
        done = sum(stage.committed for stage in rollout.stages)
        total = sum(stage.total for stage in rollout.stages)
        if done < total:
            raise PartialResult(what=what, done=done, total=total)


@contextmanager
def _display(*, quiet: bool) -> Iterator[Show]:
    if quiet:
        yield lambda _: None
    elif colourful(sys.stdout):
        with _live() as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    def __init__(self) -> None:
        self._before: RolloutView | None = None

    def __call__(self, rollout: RolloutView) -> None:
        for line in changes(self._before, rollout):
            click.echo(line)
        if settled(rollout):
            for line in trouble_lines(rollout):
                click.echo(line)
        sys.stdout.flush()
        self._before = rollout


@contextmanager
def _live() -> Iterator[Show]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), refresh_per_second=4) as live:
        yield lambda rollout: live.update(Text("\n".join([*status_lines(rollout), *trouble_lines(rollout)])))
