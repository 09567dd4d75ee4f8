# SPDX-License-Identifier: Apache-2.0
"""Parameter types and options that every verb spells the same way."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from skerry.cli.render import Output
from skerry.cli.times import parse_duration
from skerry.cli.world import World
from skerry.errors import NotConfirmed

Function = Callable[..., Any]

_SENTENCE = 1000
KINDS = ("device", "fleet", "model", "rollout", "user", "result")
_ALIASES = {alias: kind for kind in KINDS for alias in (kind, kind + "s")} | {"dev": "device", "ro": "rollout"}


class Group(click.Group):
    """Lists its commands with their whole first sentence: click itself cuts it off to fit a line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.commands[name].get_short_help_str(limit=_SENTENCE)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's signature
        if isinstance(value, float | int):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is no duration; write 30s, 10m, 2h or 1h30m", param, ctx)


DURATION = Duration()


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """`k=v,k2=v2`, any number of times. Raises click.BadParameter."""
    labels: dict[str, str] = {}
    for pair in (part.strip() for text in texts for part in text.split(",") if part.strip()):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{pair!r} is no label; write key=value")
        labels[key.strip()] = value.strip()
    return labels


def parse_kind(word: str) -> str:
    """A kind in singular, from any of its spellings. Raises click.UsageError."""
    if kind := _ALIASES.get(word.lower()):
        return kind
    raise click.UsageError(f"unknown type {word!r}; there are {', '.join(kind + 's' for kind in KINDS)}")


def parse_references(words: Sequence[str]) -> tuple[str, list[str]]:
    """TYPE, TYPE NAME..., TYPE/NAME... -> kind and names. Raises click.UsageError."""
    if not words:
        raise click.UsageError("say what: TYPE, TYPE NAME or TYPE/NAME")
    if "/" not in words[0]:
        kind = parse_kind(words[0])
        return kind, [word.removeprefix(f"{kind}/").removeprefix(f"{kind}s/") for word in words[1:]]
    split = [word.partition("/") for word in words]
    kinds = {parse_kind(kind) for kind, _, _ in split}
    if len(kinds) > 1:
        raise click.UsageError("name things of one type at a time")
    return kinds.pop(), [name for _, _, name in split if name]


def _labels(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    return parse_labels(value)


def selector_option(function: Function) -> Function:
    """`-l k=v`: gives `selector: dict[str, str]`."""
    return click.option(
        "-l", "--selector", multiple=True, metavar="K=V", callback=_labels, help="Only devices with these labels."
    )(function)


def labels_option(function: Function) -> Function:
    """`-l k=v`: gives `labels: dict[str, str]`."""
    return click.option(
        "-l", "--label", "labels", multiple=True, metavar="K=V", callback=_labels, help="Label; may be repeated."
    )(function)


def output_option(*allowed: Output, default: Output = Output.TABLE) -> Callable[[Function], Function]:
    """`-o`: gives `output: Output`."""
    names = [output.value for output in allowed or tuple(Output)]
    return click.option(
        "-o",
        "--output",
        type=click.Choice(names),
        default=default.value,
        show_default=True,
        callback=lambda _, __, value: Output(value),
        help="Form of the output.",
    )


def dry_run_option(function: Function) -> Function:
    return click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")(function)


def yes_option(function: Function) -> Function:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def watch_option(function: Function) -> Function:
    return click.option("-w", "--watch", is_flag=True, help="Keep showing changes.")(function)


def hub_options(function: Function) -> Function:
    """`--hub`, `--token`, `--ca`: gives `hub_url`, `token` and `ca`, each None when not given; see `World.hub`."""
    for option in (
        click.option("--ca", metavar="FILE", help="Authority of the hub's certificate [env: SKERRY_CA]."),
        click.option("--token", metavar="TOKEN", help="Operator token [env: SKERRY_TOKEN]."),
        click.option("--hub", "hub_url", metavar="URL", help="Address of the hub [env: SKERRY_HUB]."),
    ):
        function = option(function)
    return function


def with_hub(function: Function) -> Function:
    """Calls the command with `world` and `hub` (a HubClient) before its own parameters. Raises HubNotChosen."""

    @hub_options
    @click.pass_context
    @functools.wraps(function)
    def call(context: click.Context, /, hub_url: str | None, token: str | None, ca: str | None, **given: Any) -> Any:  # noqa: ANN401 - whatever the command takes and gives
        world = context.ensure_object(World)
        return function(world, world.hub(hub=hub_url, token=token, ca=ca), **given)

    return call


def confirm(question: str, *, what: str, yes: bool) -> None:
    """Go on, or raise NotConfirmed. Without a terminal there is no prompt: `--yes` or nothing."""
    if not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
        raise NotConfirmed(what=what)
