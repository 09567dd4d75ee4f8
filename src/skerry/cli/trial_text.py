# SPDX-License-Identifier: Apache-2.0
"""Trials in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.cli.render import clean
from skerry.cli.times import brief
from skerry.wire.v1.device import Trial, TrialMode
from skerry.wire.v1.operator import RolloutDevice
from skerry.wire.v1.report import TrialReport

_FLIPS_SHOWN = 5


def plan_line(trial: Trial) -> str:
    """What each device would do, for --dry-run."""
    what = "copies of" if trial.mode is TrialMode.SHADOW else "the answering of"
    return (
        f"  trial on each device: {what} {trial.percent:g}% of the requests for {brief(trial.seconds)} and "
        f"{trial.min_samples} requests, at most {brief(trial.longest_seconds)}"
    )


def stage_lines(devices: Sequence[RolloutDevice]) -> list[str]:
    """What the trials of a stage's devices have come to; empty when there were none."""
    reports = [device.trial for device in devices if device.trial is not None]
    if not reports:
        return []
    over = sum(report.finished for report in reports)
    asked, errors = sum(report.asked for report in reports), sum(report.errors for report in reports)
    compared, agreed = sum(report.compared for report in reports), sum(report.agreed for report in reports)
    parts = [f"{over}/{len(reports)} over", f"{asked} requests", f"{errors} errors"]
    if compared:
        parts.append(f"{100 * agreed / compared:.4g}% of {compared} answers agree")
    return [f"    trial by {reports[0].mode}: {', '.join(parts)}"]


def device_lines(device: RolloutDevice) -> list[str]:
    """One device's trial, for `describe rollout`; empty when it had none."""
    return [] if device.trial is None else [clean(f"  {device.name}: {line}") for line in _lines(device.trial)]


def summary(report: TrialReport) -> str:
    """One trial in one line."""
    state = "under way" if not report.finished else f"failed, {report.reason}" if report.reason else "passed"
    head = f"{report.mode} {state} after {brief(report.seconds)}: {report.asked} requests, {report.errors} errors"
    parts = [head]
    if report.dropped:
        parts.append(f"{report.dropped} copies dropped")
    if report.compared:
        parts.append(f"{report.agreed} of {report.compared} answers agree")
    if report.shift_mean is not None:
        parts.append(
            f"confidence {report.shift_mean:+.3g} ({_signed(report.shift_p05)} to {_signed(report.shift_p95)})"
        )
    if report.latency_p95_ms is not None:
        ratio = "" if report.latency_ratio is None else f" = {report.latency_ratio:.2f} x the current version's"
        parts.append(f"p50 {report.latency_p50_ms or 0:.3g} ms, p95 {report.latency_p95_ms:.3g} ms{ratio}")
    return ", ".join(parts)


def _lines(report: TrialReport) -> list[str]:
    lines = [summary(report)]
    if report.flips:
        most = sorted(report.flips.items(), key=lambda item: (-item[1], item[0]))[:_FLIPS_SHOWN]
        lines.append("changed: " + ", ".join(f"{pair} ({count})" for pair, count in most))
    if report.detail:
        lines.append(report.detail)
    return lines


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.3g}"
