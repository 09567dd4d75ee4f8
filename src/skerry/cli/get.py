# SPDX-License-Identifier: Apache-2.0
"""`skerry get`: lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from skerry.cli import listings, params
from skerry.cli.hub_client import HubClient
from skerry.cli.render import Listing, Output, colourful, dump, show_list
from skerry.cli.world import World
from skerry.errors import NotFound
from skerry.wire.v1.operator import ModelView

_WATCH_SECONDS = 2.0

_LISTINGS: dict[str, Listing[Any]] = {
    "device": listings.DEVICES,
    "fleet": listings.FLEETS,
    "model": listings.MODELS,
    "rollout": listings.ROLLOUTS,
    "user": listings.USERS,
    "result": listings.RESULTS,
}

_EPILOG = """\b
Types: devices, fleets, models, rollouts, users, results (of one device).
\b
  skerry get devices -l line=body-shop -o wide
  skerry get rollouts --watch
  skerry get device/press-1 -o json
  skerry get results press-1 --limit 50
"""


@click.command(epilog=_EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="TYPE [NAME]...")
@params.selector_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many results.")
@params.output_option()
@params.watch_option
@params.with_hub
def command(
    world: World,
    hub: HubClient,
    *,
    words: tuple[str, ...],
    selector: dict[str, str],
    limit: int,
    output: Output,
    watch: bool,
) -> None:
    """List devices, fleets, models, rollouts and more."""
    kind, names = params.parse_references(words)
    if selector and kind != "device":
        raise click.UsageError("-l/--selector picks devices; leave it out for other types")
    if kind == "result" and len(names) != 1:
        raise click.UsageError("say whose results: skerry get results DEVICE")
    fetch = _source(hub, kind, names, selector=selector, limit=limit)
    single = len(names) == 1 and kind != "result"
    if watch:
        _watch(world, kind, fetch, output)
    elif single and output in {Output.JSON, Output.YAML}:
        dump(fetch()[0], output)
    else:
        show_list(fetch(), _LISTINGS[kind], output=output, now=world.clock.now())


def _source(
    hub: HubClient, kind: str, names: Sequence[str], *, selector: dict[str, str], limit: int
) -> Callable[[], Sequence[Any]]:
    """A function that asks the hub anew each time it is called."""
    if kind == "device":
        return lambda: [hub.device(name) for name in names] if names else hub.devices(selector)
    if kind == "rollout" and names:
        return lambda: [hub.rollout(name) for name in names]
    if kind == "fleet" and names:
        return lambda: [hub.fleet(name) for name in names]
    if kind == "result":
        return lambda: hub.newest_results(hub.device(names[0]).id, limit=limit)
    if kind == "model":
        return lambda: pick_models(hub.models(), names)
    everything: dict[str, Callable[[], Sequence[Any]]] = {
        "fleet": hub.fleets,
        "rollout": hub.rollouts,
        "user": hub.users,
    }
    return lambda: _pick(everything[kind](), kind, names)


def pick_models(models: Sequence[ModelView], names: Sequence[str]) -> Sequence[ModelView]:
    """Models named [LINE/]MODEL[:VERSION]; all without names. Raises NotFound."""
    picked: list[ModelView] = []
    for name in names:
        found = [model for model in models if _is_named(model, name)]
        if not found:
            raise NotFound(kind="model", name=name)
        picked.extend(found)
    return picked if names else models


def _is_named(model: ModelView, name: str) -> bool:
    ref = model.bundle
    spellings = {ref.model, ref.name}
    return name in spellings | {f"{ref.line}/{spelling}" for spelling in spellings}


def _pick(items: Sequence[Any], kind: str, names: Sequence[str]) -> Sequence[Any]:
    named = {_LISTINGS[kind].name(item): item for item in items}
    for name in names:
        if name not in named:
            raise NotFound(kind=kind, name=name)
    return [named[name] for name in names] if names else items


def _watch(world: World, kind: str, fetch: Callable[[], Sequence[Any]], output: Output) -> None:
    """Redraw on a terminal; elsewhere print what changed. Until Ctrl-C."""
    shown: Sequence[Any] | None = None
    while True:
        items = fetch()
        if colourful(sys.stdout) and output in {Output.TABLE, Output.WIDE}:
            click.clear()
            show_list(items, _LISTINGS[kind], output=output, now=world.clock.now())
        elif items != shown:
            fresh = [item for item in items if shown is None or item not in shown]
            if fresh or shown is None:
                show_list(fresh, _LISTINGS[kind], output=output, now=world.clock.now())
            sys.stdout.flush()
        shown = items
        world.wait(_WATCH_SECONDS)
