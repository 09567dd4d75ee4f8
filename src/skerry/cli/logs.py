# SPDX-License-Identifier: Apache-2.0
"""`skerry logs`: what a device reported, newest last."""

from __future__ import annotations

import sys

import click

from skerry.cli import params, trial_text
from skerry.cli.hub_client import HubClient
from skerry.cli.render import Output, clean, dump
from skerry.cli.times import iso
from skerry.cli.world import World
from skerry.wire.v1.report import (
    Body,
    DeviceReport,
    FiguresReport,
    HistoryReport,
    Report,
    ResultReport,
    TrialReport,
    WorkloadReport,
)

_POLL_SECONDS = 2.0


@click.command()
@click.argument("device")
@click.option("-n", "--tail", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", "-w", "--watch", "follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--all", "everything", is_flag=True, help="Figures, results and history too, not only events.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.with_hub
def command(
    world: World, hub: HubClient, *, device: str, tail: int, follow: bool, everything: bool, output: Output
) -> None:
    """Show what a device reported."""
    found = hub.device(device.removeprefix("device/"))
    every, mark = hub.reports(found.id)
    reports = [report for report in every if everything or is_event(report)][-tail:]
    if output is not Output.TABLE:
        dump(reports, output)
        return
    if not reports:
        click.echo(f"nothing reported by {found.name} yet", err=True)
    _print(reports)
    while follow:
        world.wait(_POLL_SECONDS)
        fresh, mark = hub.reports(found.id, mark)
        _print([report for report in fresh if everything or is_event(report)])
        sys.stdout.flush()


def is_event(report: Report) -> bool:
    body = report.body
    return isinstance(body, WorkloadReport | DeviceReport) or (isinstance(body, TrialReport) and body.finished)


def _print(reports: list[Report]) -> None:
    for report in reports:
        click.echo(clean(f"{iso(report.at)}  {body_text(report.body)}"))


def body_text(body: Body) -> str:
    """One line; facts as key=value."""
    if isinstance(body, WorkloadReport):
        parts = [f"{body.workload}: {body.state}", f"bundle={body.digest[:19]}"]
        parts += [f"{name}={value}" for name, value in _optional(body) if value]
        return " ".join(parts)
    if isinstance(body, FiguresReport):
        probes = f", {body.probes} probes" if body.probes else ""
        return (
            f"{body.workload}: {body.requests} requests, {body.errors} errors{probes} in {body.window_seconds:.0f} s,"
            f" p50 {body.latency_p50_ms:.2f} ms, p95 {body.latency_p95_ms:.2f} ms"
        )
    if isinstance(body, TrialReport):
        return f"{body.workload}: trial by {trial_text.summary(body)}"
    if isinstance(body, ResultReport):
        return f"{body.workload}: result {body.event_id} of {body.bundle}"
    if isinstance(body, HistoryReport):
        return f"history {body.entry.n}: {body.entry.kind}"
    issues = ", ".join(body.issues) or "none"
    return f"device: agent {body.capabilities.agent_version or '?'}, assignment {body.sequence}, issues: {issues}"


def _optional(body: WorkloadReport) -> tuple[tuple[str, str], ...]:
    return (
        ("variant", body.variant),
        ("reason", body.reason),
        ("detail", body.detail),
        ("rollout", body.rollout),
    )
