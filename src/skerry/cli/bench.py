# SPDX-License-Identifier: Apache-2.0
"""`skerry bench`: what does a model cost here, and is this one better than that one?"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import click

from skerry.cli import params
from skerry.cli.benching import report, trial
from skerry.cli.benching.report import Measured, Report
from skerry.cli.benching.subjects import Form, Settings, Subject, Via, is_url, open_subject
from skerry.cli.benching.trial import Advance, Plan
from skerry.cli.render import Output, clean, colourful, dump

E = TypeVar("E", bound=StrEnum)

_EPILOG = """\b
  skerry bench digits-0.1.0.skb                     a runner of its own, over TCP
  skerry bench digits-0.1.0.skb digits-0.2.0.skb    is the new one faster?
  skerry bench model.onnx --versus via=in-process   what does serving add?
  skerry bench digits.skb --versus variant=int8
  skerry bench http://127.0.0.1:9000 --connections 32
"""


@click.command(epilog=_EPILOG)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET [OTHER]")
@click.option("--seconds", type=params.DURATION, default="10s", show_default=True, help="Time for each target.")
@click.option(
    "--connections", type=click.IntRange(1, 512), default=8, show_default=True, metavar="N", help="For the throughput."
)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="K=V",
    help="variant=, via=tcp|unix|shm|in-process, form=binary|json, env.NAME=.",
)
@click.option("--versus", multiple=True, metavar="K=V", help="Compare TARGET with itself under these settings.")
@click.option("--model", metavar="NAME", default="", help="Which model of a server that has several.")
@click.option("--random", is_flag=True, help="Made-up inputs instead of the bundle's self-test samples.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(
    *,
    targets: tuple[str, ...],
    seconds: float,
    connections: int,
    given: tuple[str, ...],
    versus: tuple[str, ...],
    model: str,
    random: bool,
    as_json: bool,
    output: Output,
) -> None:
    """Measure a bundle, a model file or a server; or two, paired.

    Latency with one connection, throughput with many, CPU, memory, cold start, and energy where this machine counts it.

    TARGET is a bundle (FILE.skb or a folder), a model file, or the address of a server (http://HOST:PORT[/MODEL],
    unix:///PATH, shm:///PATH). Bundles and files get a runner of their own, started as an agent starts it.
    """
    targets, settings = _paired(targets, _applied(Settings(), params.parse_labels(given)), params.parse_labels(versus))
    plan = Plan(seconds=seconds, connections=connections)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-bench-")))
        subjects = [
            stack.enter_context(open_subject(target, each, folder, model=model, random=random))
            for target, each in zip(targets, settings, strict=True)
        ]
        _tell_apart(subjects)
        found = run(subjects, plan)
    if as_json or output is not Output.TABLE:
        dump(found, Output.JSON if as_json else output)
    else:
        click.echo("\n".join(map(clean, report.lines(found))))


def _applied(settings: Settings, pairs: Mapping[str, str]) -> Settings:
    """Raises click.BadParameter."""
    for name, value in pairs.items():
        match name:
            case "variant":
                settings = replace(settings, variant=value)
            case "via":
                settings = replace(settings, via=_one_of(Via, name, value))
            case "form":
                settings = replace(settings, form=_one_of(Form, name, value))
            case _ if name.startswith("env."):
                settings = replace(settings, environment={**settings.environment, name.removeprefix("env."): value})
            case _:
                raise click.BadParameter(f"there is no setting {name}, only variant, via, form and env.NAME")
    return settings


def _one_of(kind: type[E], name: str, value: str) -> E:
    if value not in set(kind):
        raise click.BadParameter(f"{name} is one of {', '.join(kind)}")
    return kind(value)


def _paired(
    targets: tuple[str, ...], first: Settings, versus: Mapping[str, str]
) -> tuple[tuple[str, ...], list[Settings]]:
    if len(targets) > (1 if versus else 2):
        raise click.UsageError("compare two targets, or one with itself under --versus settings")
    if not versus:
        return targets, [first] * len(targets)
    other = _applied(first, versus)
    if is_url(targets[0]) and (other.via, other.variant, other.environment) != (first.via, first.variant, {}):
        raise click.UsageError("of a server that runs already only form= can be chosen")
    return targets * 2, [first, other]


def _tell_apart(subjects: list[Subject]) -> None:
    if len(subjects) > 1 and subjects[0].name == subjects[1].name:
        for number, subject in enumerate(subjects, 1):
            subject.name += f" ({number})"


def run(subjects: list[Subject], plan: Plan) -> Report:
    with _progress(plan.rounds * len(subjects) * 2) as advance:
        rounds = trial.measure(subjects, plan, advance)
    usual, highest = report.pressure_of(rounds)
    return Report(
        connections=plan.connections,
        rounds=plan.rounds,
        seconds=plan.seconds,
        subjects=tuple(
            Measured(name=each.name, figures=trial.figures(each, rounds), unseen=each.unseen) for each in subjects
        ),
        differences=tuple(trial.differences(subjects[0].name, subjects[1].name, rounds)) if len(subjects) > 1 else (),
        pressure=usual,
        pressure_highest=highest,
    )


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A bar on a terminal; nothing elsewhere, where the result is all that is wanted."""
    if not colourful(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda step: bar.advance(task, step)
