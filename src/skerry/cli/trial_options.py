# SPDX-License-Identifier: Apache-2.0
"""Options of `skerry deploy` that try the new version on each device before it is switched to."""

from __future__ import annotations

import functools
import re
from typing import Any

import click

from skerry.cli import params
from skerry.wire.v1.device import KeepWarm, Trial, TrialMode

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%?")
_HUNDRED = 100.0
_LONGEST = Trial().longest_seconds


class Percent(click.ParamType[float]):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's signature
        match = _PERCENT.fullmatch(str(value))
        if not match or not 0 < float(match[1]) <= _HUNDRED:
            self.fail(f"{value!r} is no share of the requests; write 5% or 100%", param, ctx)
        return float(match[1])


def options(function: params.Function) -> params.Function:
    """Gives `trial: Trial | None` and `keep_warm: KeepWarm`; needs `deadline`, within which a trial has to end."""

    @click.option(
        "--shadow",
        type=Percent(),
        metavar="PERCENT",
        help="First show the new version this share of the live requests and compare its answers.",
    )
    @click.option(
        "--split",
        type=Percent(),
        metavar="PERCENT",
        help="First let the new version answer this share of the requests; what it fails, the current one answers.",
    )
    @click.option("--trial-for", type=params.DURATION, metavar="DURATION", help="How long, at least.  [default: 60s]")
    @click.option(
        "--trial-samples", type=click.IntRange(min=1), metavar="N", help="And how many requests.  [default: 20]"
    )
    @click.option(
        "--keep-warm",
        type=click.Choice([choice.value for choice in KeepWarm]),
        default=KeepWarm.AUTO.value,
        show_default=True,
        help="Keep the version before loaded while the new one soaks.",
    )
    @functools.wraps(function)
    def call(
        *args: Any,  # noqa: ANN401 - whatever the command takes
        shadow: float | None,
        split: float | None,
        trial_for: float | None,
        trial_samples: int | None,
        keep_warm: str,
        **given: Any,  # noqa: ANN401 - same
    ) -> Any:  # noqa: ANN401 - and gives
        trial = _trial(shadow, split, trial_for, trial_samples, deadline=given["deadline"])
        return function(*args, trial=trial, keep_warm=KeepWarm(keep_warm), **given)

    return call


def _trial(
    shadow: float | None, split: float | None, seconds: float | None, samples: int | None, *, deadline: float
) -> Trial | None:
    if shadow is not None and split is not None:
        raise click.UsageError("--shadow compares answers, --split gives them to clients: choose one of them")
    percent = shadow if shadow is not None else split
    if percent is None:
        if seconds is not None or samples is not None:
            raise click.UsageError("--trial-for and --trial-samples are about a trial: give --shadow or --split too")
        return None
    given = Trial(mode=TrialMode.SHADOW if split is None else TrialMode.CANARY, percent=percent)
    seconds = given.seconds if seconds is None else seconds
    if seconds >= deadline:
        raise click.UsageError(f"a trial of {seconds:g} s does not end within --deadline {deadline:g} s")
    return Trial(
        mode=given.mode,
        percent=percent,
        seconds=seconds,
        longest_seconds=max(seconds, min(_LONGEST, deadline / 2)),
        min_samples=given.min_samples if samples is None else samples,
    )
