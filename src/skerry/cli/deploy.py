# SPDX-License-Identifier: Apache-2.0
"""`skerry deploy`: start a rollout."""

from __future__ import annotations

import click

from skerry.bundle.rules import name_problem
from skerry.cli import params, rollout_parse, trial_options
from skerry.cli.get import pick_models
from skerry.cli.hub_client import HubClient
from skerry.cli.render import Output, dump
from skerry.cli.rollout_text import headline, plan_lines
from skerry.cli.rollout_watch import follow, judge
from skerry.cli.world import World
from skerry.errors import RolloutRefused
from skerry.hub.rollout.trials import trial_problem
from skerry.wire.v1.device import KeepWarm, Trial
from skerry.wire.v1.operator import Gate, OnFailure, RolloutSpec, StageSpec

_EPILOG = """\b
  skerry deploy weld-defect:1.5.1 --workload weld --fleet body-shop --canary 3 --watch
  skerry deploy weld-defect:1.5.1 --workload weld -l line=body-shop \\
      --stages "1,25%,rest" --gate "latency_p95_ms<=10" --gate "error_rate<=1%"
  skerry deploy weld-defect:1.5.1 --workload weld --fleet body-shop --shadow 100% --trial-for 10m \\
      --gate "agreement>=98%" --gate "shadow_latency_ratio<=1.2"
\b
With --watch the exit code is 0 when every device committed, 3 when a gate stopped it,
4 when --timeout was over first, 5 when it is done but not on every device.
"""


def _gates(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[Gate, ...]:
    return tuple(rollout_parse.parse_gate(text) for text in texts)


def _model(_: click.Context, __: click.Parameter, text: str) -> str:
    return rollout_parse.check_model_name(text)


def _workload(_: click.Context, __: click.Parameter, text: str) -> str:
    if problem := name_problem(text):
        raise click.BadParameter(problem)
    return text


@click.command(epilog=_EPILOG)
@click.argument("model", metavar="[LINE/]MODEL:VERSION", callback=_model)
@click.option(
    "--workload",
    required=True,
    metavar="NAME",
    callback=_workload,
    help="What it runs as on each device, and in its URL.",
)
@click.option("--fleet", default="", metavar="NAME", help="To the devices of this fleet ...")
@params.selector_option
@click.option("--canary", type=click.IntRange(min=1), metavar="N", help="First N devices, then the rest.")
@click.option("--stages", metavar="LIST", help='Stages: counts, percents, labels, rest: "1,25%,rest".')
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="COND",
    callback=_gates,
    help="What every stage must meet. Without one on update_success, every device must succeed.",
)
@click.option(
    "--soak", type=params.DURATION, default="30s", show_default=True, help="How long a device must stay healthy."
)
@click.option(
    "--stage-soak", type=params.DURATION, default="0s", show_default=True, help="Watch each stage this much longer."
)
@click.option(
    "--deadline", type=params.DURATION, default="1h", show_default=True, help="A device silent for this long failed."
)
@click.option(
    "--on-failure",
    type=click.Choice([choice.value for choice in OnFailure]),
    default="undo",
    show_default=True,
    help="What to do when a gate fails.",
)
@trial_options.options
@params.watch_option
@click.option("--timeout", type=params.DURATION, help="Stop watching after this long (exit 4).")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.dry_run_option
@params.with_hub
def command(
    world: World,
    hub: HubClient,
    *,
    model: str,
    workload: str,
    fleet: str,
    selector: dict[str, str],
    canary: int | None,
    stages: str | None,
    gates: tuple[Gate, ...],
    soak: float,
    stage_soak: float,
    deadline: float,
    trial: Trial | None,
    keep_warm: KeepWarm,
    on_failure: str,
    watch: bool,
    timeout: float | None,
    output: Output,
    dry_run: bool,
) -> None:
    """Roll a model out to a fleet, in stages, behind gates.

    A device counts as updated only after a verified switch, a passed self-test and its soak; silence is failure.
    When a gate fails, every device the rollout touched goes back to what it ran before.
    """
    if bool(fleet) == bool(selector):
        raise click.UsageError("say where to: either --fleet NAME or -l key=value")
    spec = RolloutSpec(
        workload=workload,
        bundle=model,
        fleet=fleet,
        selector=selector,
        stages=_stages(canary, stages, stage_soak),
        gates=gates,
        deadline_seconds=deadline,
        device_soak_seconds=soak,
        on_failure=OnFailure(on_failure),
        trial=trial,
        keep_warm=keep_warm,
    )
    if dry_run:
        _rehearse(hub, spec, output)
        return
    rollout = hub.start_rollout(spec)
    if watch:
        rollout = follow(world, hub, rollout, timeout=timeout, quiet=output is not Output.TABLE)
    if output is not Output.TABLE:
        dump(rollout, output)
    elif not watch:
        click.echo(headline(rollout))
        click.echo(f"next: skerry rollout status {rollout.id} --watch", err=True)
    if watch:
        judge(rollout)


def _stages(canary: int | None, stages: str | None, stage_soak: float) -> tuple[StageSpec, ...]:
    if canary is not None and stages is not None:
        raise click.UsageError("--canary is short for --stages N,rest: give one of them")
    if canary is not None:
        return rollout_parse.canary_stages(canary, soak_seconds=stage_soak)
    if stages is not None:
        return rollout_parse.parse_stages(stages, soak_seconds=stage_soak)
    return (StageSpec(name="all", soak_seconds=stage_soak),)


def _rehearse(hub: HubClient, spec: RolloutSpec, output: Output) -> None:
    """What can be checked without changing anything: the model and the fleet are there, somebody is in it, gates can be measured."""
    pick_models(hub.models(), [spec.bundle])
    problem = trial_problem(spec)
    if problem:
        raise RolloutRefused(rollout=f"of {spec.bundle}", action="start", problem=problem)
    selector = hub.fleet(spec.fleet).selector if spec.fleet else spec.selector
    reached = [device for device in hub.devices(selector) if not device.revoked]
    if not reached:
        raise RolloutRefused(rollout=f"of {spec.bundle}", action="start", problem="no device matches")
    if output is not Output.TABLE:
        dump(spec, output)
        return
    click.echo("\n".join(plan_lines(spec)))
    click.echo(f"  {len(reached)} device(s) match now")
