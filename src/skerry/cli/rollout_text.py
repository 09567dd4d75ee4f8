# SPDX-License-Identifier: Apache-2.0
"""A rollout in words: what `rollout status`, `describe rollout` and the watch print. Pure."""

from __future__ import annotations

from skerry.cli import trial_text
from skerry.cli.listings import committed_text, labels_text, totals
from skerry.cli.render import aligned, clean, pairs
from skerry.cli.rollout_parse import UNITS
from skerry.cli.times import ago, brief
from skerry.wire.v1.device import KeepWarm
from skerry.wire.v1.operator import (
    Gate,
    GateResult,
    Metric,
    RolloutSpec,
    RolloutStatus,
    RolloutView,
    StageSpec,
    StageStatus,
    StageView,
)

_BAR = 20
_TENTH = 0.1
_FINAL = frozenset({RolloutStatus.DONE, RolloutStatus.UNDONE})


def value_text(metric: Metric, value: float | None) -> str:
    if value is None:
        return "-"
    unit = UNITS[metric]
    if unit == "ms":
        return f"{value:.2f}" if value >= _TENTH else f"{value:.2g}"
    return f"{100 * value:.4g}%" if unit == "%" else f"{value:.4g}"


def gate_text(gate: Gate | GateResult) -> str:
    """The condition: `latency_p95_ms <= 10.00`. Read back, it is the same condition."""
    bounds = [("<=", gate.max), (">=", gate.min)]
    return " and ".join(f"{gate.metric} {sign} {value_text(gate.metric, v)}" for sign, v in bounds if v is not None)


def gate_result_text(gate: GateResult) -> str:
    """Measured against limit, and the verdict in a word. What nobody measured has not passed, even where nothing stopped."""
    if gate.measured is None:
        verdict = {True: "not measured", False: "FAILED, not measured", None: "not measured yet"}[gate.passed]
        return f"{gate_text(gate)}: {verdict}"
    verdict = {True: "passed", False: "FAILED", None: "so far"}[gate.passed]
    return f"{gate_text(gate)}: {value_text(gate.metric, gate.measured)} {verdict}"


def stage_limit(stage: StageSpec) -> str:
    parts = [labels_text(stage.labels)] if stage.labels else []
    if stage.count is not None:
        parts.append(f"{stage.count} device(s)")
    elif stage.percent is not None:
        parts.append(f"{stage.percent:g}%")
    return ", ".join(parts) or "the rest"


def stage_line(stage: StageView, *, undone: bool = False) -> str:
    """One line, ASCII: name, bar, status, counts. Which devices a stage has is settled when it starts."""
    filled = _BAR * stage.committed // stage.total if stage.total else 0
    counts = committed_text(stage.committed, stage.total, stage.failed, undone=undone)
    if stage.pending and stage.status in {StageStatus.RUNNING, StageStatus.SOAKING}:
        counts += f", {stage.pending} pending"
    return f"{stage.name:<12} [{'#' * filled:<{_BAR}}] {stage.status:<8} {counts}".rstrip()


def headline(rollout: RolloutView) -> str:
    parts = [f"rollout {rollout.id}", f"{rollout.bundle.name} {rollout.status}", totals(rollout), rollout.reason]
    return clean(": ".join(part for part in parts if part))


def status_lines(rollout: RolloutView) -> list[str]:
    """Headline, stages with their gates."""
    lines = [headline(rollout)]
    for index, stage in enumerate(rollout.stages):
        lines.append("  " + clean(stage_line(stage, undone=rollout.status is RolloutStatus.UNDONE)))
        lines += trial_text.stage_lines([device for device in rollout.devices if device.stage == index])
        if stage.status is not StageStatus.WAITING:
            lines.extend(f"    gate {gate_result_text(gate)}" for gate in stage.gates)
    return lines


def trouble_lines(rollout: RolloutView) -> list[str]:
    """Devices that did not make it, with what they said."""
    rows = [[device.name, device.state, device.reason or "-"] for device in rollout.devices if device.state in _TROUBLE]
    return ["  " + clean(line) for line in aligned(rows)] if rows else []


_TROUBLE = frozenset({"failed", "undoing", "undone"})


def describe_rollout(rollout: RolloutView, now: float) -> list[str]:
    spec = rollout.spec
    took = (rollout.finished or now) - rollout.created
    facts = {
        "Rollout": rollout.id,
        "Status": rollout.status,
        "Reason": rollout.reason,
        "Bundle": f"{rollout.bundle.line}/{rollout.bundle.name} ({rollout.bundle.digest})",
        "Workload": spec.workload,
        "To": f"fleet {spec.fleet}" if spec.fleet else labels_text(spec.selector),
        "Started": f"{ago(rollout.created, now)} by {rollout.created_by or '?'}",
        "Took" if rollout.status in _FINAL else "Running for": brief(took),
        "On failure": spec.on_failure,
        "Deadline": brief(spec.deadline_seconds),
    }
    devices = [[d.name, _stage_name(rollout, d.stage), d.state, d.reason or "-"] for d in rollout.devices]
    table = [["DEVICE", "STAGE", "STATE", "REASON"], *devices]
    trials = [line for device in rollout.devices for line in trial_text.device_lines(device)]
    return [
        *pairs(facts),
        "",
        *status_lines(rollout)[1:],
        *(["", "Trials:", *trials] if trials else []),
        *(["", *("  " + clean(line) for line in aligned(table))] if devices else []),
    ]


def _stage_name(rollout: RolloutView, index: int) -> str:
    return rollout.stages[index].name if 0 <= index < len(rollout.stages) else "-"


def plan_lines(spec: RolloutSpec) -> list[str]:
    """What a rollout would do, for --dry-run."""
    where = f"fleet {spec.fleet}" if spec.fleet else f"devices with {labels_text(spec.selector)}"
    lines = [f"would roll {spec.bundle} out as workload {spec.workload} to {where}"]
    stages = spec.stages or (StageSpec(name="all"),)
    lines += [
        f"  stage {index} {stage.name}: {stage_limit(stage)}, watched for {brief(stage.soak_seconds)}"
        for index, stage in enumerate(stages, 1)
    ]
    lines += [f"  gate {gate_text(gate)}" for gate in spec.gates]
    if spec.trial is not None:
        lines.append(trial_text.plan_line(spec.trial))
    lines.append(f"  each device: soak {brief(spec.device_soak_seconds)}, deadline {brief(spec.deadline_seconds)}")
    if spec.keep_warm is not KeepWarm.AUTO:
        lines.append(f"  keep the version before warm: {spec.keep_warm}")
    lines.append(f"  on failure: {spec.on_failure}")
    return lines


def changes(before: RolloutView | None, after: RolloutView) -> list[str]:
    """What to say of the step from one view to the next, for a log; empty when nothing happened."""
    lines: list[str] = []
    old_stages = {stage.name: stage for stage in before.stages} if before else {}
    for stage in after.stages:
        old = old_stages.get(stage.name)
        if stage.status is not StageStatus.WAITING and (old is None or _shown(old) != _shown(stage)):
            lines.append("  " + clean(stage_line(stage, undone=after.status is RolloutStatus.UNDONE)))
            lines += [f"    gate {gate_result_text(gate)}" for gate in stage.gates if _news(old, gate)]
    if before is None or before.status is not after.status or before.reason != after.reason:
        lines.insert(0, headline(after))
    return lines


def _shown(stage: StageView) -> tuple[object, ...]:
    return (stage.status, stage.committed, stage.failed, stage.total, tuple(gate.passed for gate in stage.gates))


def _news(old: StageView | None, gate: GateResult) -> bool:
    before = {gate_text(known): known.passed for known in old.gates} if old else {}
    return gate.passed is not None and before.get(gate_text(gate)) != gate.passed
