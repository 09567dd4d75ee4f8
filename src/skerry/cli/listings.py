# SPDX-License-Identifier: Apache-2.0
"""How each kind of thing is listed: its columns, its name, and what to do when there is none."""

from __future__ import annotations

from skerry.cli.progress import size_text
from skerry.cli.render import Column, Listing
from skerry.cli.times import ago, iso
from skerry.wire.v1.operator import (
    AuditEntry,
    DeviceView,
    DeviceWorkload,
    FleetView,
    ModelView,
    RolloutStatus,
    RolloutView,
    StageStatus,
    StoredResult,
    UserView,
)

SILENT_AFTER_SECONDS = 120.0
"""A device polls at least every 30 s; after four missed polls it is shown as silent."""


def labels_text(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "-"


def number(value: float | None, *, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def device_status(device: DeviceView, now: float) -> str:
    if device.revoked:
        return "revoked"
    if device.last_seen is None:
        return "never seen"
    return "silent" if now - device.last_seen > SILENT_AFTER_SECONDS else "online"


def workload_text(workload: DeviceWorkload) -> str:
    return f"{workload.workload}={workload.bundle or workload.digest[:19]}"


def _runs(device: DeviceView, _: float) -> str:
    return ", ".join(map(workload_text, device.workloads)) or "-"


def _workload_states(device: DeviceView, _: float) -> str:
    return ", ".join(workload.state for workload in device.workloads) or "-"


def committed_text(committed: int, total: int, failed: int, *, undone: bool) -> str:
    """`1/4 committed, 2 failed`; empty while no device has been chosen. Once undone, none of them runs it any more."""
    if not total:
        return ""
    return f"{committed}/{total} {'had ' if undone else ''}committed" + (f", {failed} failed" if failed else "")


def totals(rollout: RolloutView) -> str:
    """Over the stages that have begun."""
    stages = rollout.stages
    return committed_text(
        sum(stage.committed for stage in stages),
        sum(stage.total for stage in stages),
        sum(stage.failed for stage in stages),
        undone=rollout.status is RolloutStatus.UNDONE,
    )


def current_stage(rollout: RolloutView) -> str:
    """`2/3 rest`: the last stage that has begun."""
    begun = [stage for stage in rollout.stages if stage.status is not StageStatus.WAITING]
    return f"{len(begun)}/{len(rollout.stages)} {begun[-1].name}" if begun else "-"


def outputs_text(result: StoredResult) -> str:
    parts = (f"{name}={','.join(map(str, values[:4]))}" for name, values in sorted(result.outputs.items()))
    return " ".join(parts) or "-"


DEVICES: Listing[DeviceView] = Listing(
    kind="device",
    name=lambda device: device.name,
    columns=(
        Column(header="NAME", cell=lambda device, _: device.name),
        Column(header="STATUS", cell=device_status),
        Column(header="SEEN", cell=lambda device, now: ago(device.last_seen, now)),
        Column(header="RUNS", cell=_runs),
        Column(header="STATE", cell=_workload_states),
        Column(header="LABELS", cell=lambda device, _: labels_text(device.labels)),
        Column(header="ARCH", cell=lambda device, _: device.capabilities.arch, wide=True),
        Column(header="AGENT", cell=lambda device, _: device.capabilities.agent_version or "-", wide=True),
        Column(header="SEQ", cell=lambda device, _: str(device.assignment_sequence), wide=True),
        Column(header="ISSUES", cell=lambda device, _: ", ".join(device.issues) or "-", wide=True),
        Column(header="ID", cell=lambda device, _: device.id, wide=True),
    ),
    empty="no devices yet; make an enrolment token with `skerry enroll-token`,"
    " then on the device: skerry agent join --hub URL --token TOKEN --state DIR",
)

FLEETS: Listing[FleetView] = Listing(
    kind="fleet",
    name=lambda fleet: fleet.name,
    columns=(
        Column(header="NAME", cell=lambda fleet, _: fleet.name),
        Column(header="DEVICES", cell=lambda fleet, _: str(fleet.devices)),
        Column(
            header="SELECTOR", cell=lambda fleet, _: labels_text(fleet.selector) if fleet.selector else "everything"
        ),
    ),
    empty="no fleets yet; name a set of devices with `skerry fleet set NAME -l key=value`",
)

MODELS: Listing[ModelView] = Listing(
    kind="model",
    name=lambda model: f"{model.bundle.line}/{model.bundle.name}",
    columns=(
        Column(header="MODEL", cell=lambda model, _: model.bundle.name),
        Column(header="LINE", cell=lambda model, _: model.bundle.line),
        Column(header="SEQ", cell=lambda model, _: str(model.bundle.release_seq)),
        Column(header="SIZE", cell=lambda model, _: size_text(model.size)),
        Column(header="VARIANTS", cell=lambda model, _: ",".join(model.variants) or "-"),
        Column(header="PUBLISHED", cell=lambda model, now: ago(model.published, now)),
        Column(header="STATUS", cell=lambda model, _: "quarantined" if model.quarantined else "ok"),
        Column(header="DIGEST", cell=lambda model, _: model.bundle.digest, wide=True),
    ),
    empty="no models yet; pack one with `skerry pack`, then `skerry push FILE.skb --key line-NAME.pem`",
)

ROLLOUTS: Listing[RolloutView] = Listing(
    kind="rollout",
    name=lambda rollout: rollout.id,
    columns=(
        Column(header="ID", cell=lambda rollout, _: rollout.id),
        Column(header="STATUS", cell=lambda rollout, _: rollout.status),
        Column(header="MODEL", cell=lambda rollout, _: rollout.bundle.name),
        Column(header="WORKLOAD", cell=lambda rollout, _: rollout.spec.workload),
        Column(header="TO", cell=lambda rollout, _: rollout.spec.fleet or labels_text(rollout.spec.selector)),
        Column(header="STAGE", cell=lambda rollout, _: current_stage(rollout)),
        Column(header="DEVICES", cell=lambda rollout, _: totals(rollout) or "-"),
        Column(header="STARTED", cell=lambda rollout, now: ago(rollout.created, now)),
        Column(header="BY", cell=lambda rollout, _: rollout.created_by, wide=True),
        Column(header="REASON", cell=lambda rollout, _: rollout.reason or "-", wide=True),
    ),
    empty="no rollouts yet; start one with `skerry deploy MODEL:VERSION --workload NAME --fleet FLEET --canary 1 --watch`",
)

USERS: Listing[UserView] = Listing(
    kind="user",
    name=lambda user: user.name,
    columns=(
        Column(header="NAME", cell=lambda user, _: user.name),
        Column(header="ROLE", cell=lambda user, _: user.role),
        Column(header="CREATED", cell=lambda user, now: ago(user.created, now)),
    ),
    empty="no users yet; add one with `skerry user add NAME --role viewer`",
)

RESULTS: Listing[StoredResult] = Listing(
    kind="result",
    name=lambda result: result.event_id,
    columns=(
        Column(header="TIME", cell=lambda result, _: iso(result.at)),
        Column(header="DEVICE", cell=lambda result, _: result.device_id),
        Column(header="WORKLOAD", cell=lambda result, _: result.workload),
        Column(header="BUNDLE", cell=lambda result, _: result.bundle),
        Column(header="OUTPUTS", cell=lambda result, _: outputs_text(result)),
        Column(header="REQUEST", cell=lambda result, _: result.request_id or "-", wide=True),
        Column(header="EVENT", cell=lambda result, _: result.event_id, wide=True),
    ),
    empty="no results yet; a bundle says with `egress: results:` which outputs may leave the device",
)

AUDIT: Listing[AuditEntry] = Listing(
    kind="audit",
    name=lambda entry: str(entry.n),
    columns=(
        Column(header="N", cell=lambda entry, _: str(entry.n)),
        Column(header="TIME", cell=lambda entry, _: iso(entry.at)),
        Column(header="ACTOR", cell=lambda entry, _: entry.actor),
        Column(header="ROLE", cell=lambda entry, _: entry.role),
        Column(header="ACTION", cell=lambda entry, _: entry.action),
        Column(header="SUBJECT", cell=lambda entry, _: entry.subject),
        Column(header="OUTCOME", cell=lambda entry, _: entry.outcome),
    ),
    empty="the audit log is empty: nothing was changed on this hub yet",
)
