# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.hub.domain import (
    LatestFigures,
    Member,
    MemberState,
    Outcome,
    RolloutRecord,
    RolloutState,
    Seen,
    StageRecord,
)
from skerry.hub.rollout.gates import measure
from skerry.hub.rollout.planner import stage_limit
from skerry.wire.v1.operator import Gate, Metric, RolloutSpec, RolloutStatus, StageSpec, StageStatus
from skerry.wire.v1.report import FiguresReport
from unit.hub.rollout_world import bundle

STAGE = StageRecord(index=0, name="one", status=StageStatus.RUNNING)


def window(p95: float = 5.0, *, requests: int = 100, errors: int = 0, probes: int = 0, rollout: str = "r-1"):
    figures = FiguresReport(
        workload="digits",
        digest=bundle(2).digest,
        window_seconds=2.0,
        requests=requests,
        errors=errors,
        latency_p50_ms=1.0,
        latency_p95_ms=p95,
        latency_p99_ms=99.0,
        probes=probes,
        rollout=rollout,
    )
    return LatestFigures(device_id="x", at=0.0, received=10.0, figures=figures)


def state(outcomes: str, windows: list[LatestFigures | None], *gates: Gate, accepted: str = "") -> RolloutState:
    """`outcomes`: one letter a device, c(ommitted), f(ailed) or p(ending)."""
    known = {"c": Outcome.COMMITTED, "f": Outcome.FAILED, "p": Outcome.PENDING}
    states = {"c": MemberState.COMMITTED, "f": MemberState.FAILED, "p": MemberState.ASSIGNED}
    members = tuple(
        Member(
            device_id=str(n),
            name=str(n),
            stage=0,
            state=states[letter],
            outcome=known[letter],
            assigned_at=1.0,
            accepted=str(n) in accepted,
        )
        for n, letter in enumerate(outcomes)
    )
    seen = {str(n): Seen(figures=one) for n, one in enumerate(windows)}
    record = RolloutRecord(
        id="r-1",
        spec=RolloutSpec(workload="digits", bundle="digits:2.0", gates=gates),
        selector={},
        bundle=bundle(2),
        status=RolloutStatus.RUNNING,
        created=0.0,
        created_by="anna",
    )
    return RolloutState(rollout=record, stages=(STAGE,), members=members, seen=seen)


def success(outcomes: str, minimum: float | None, accepted: str = ""):
    gates = () if minimum is None else (Gate(metric=Metric.UPDATE_SUCCESS, min=minimum),)
    (result,) = measure(state(outcomes, [], *gates, accepted=accepted), STAGE)
    return result.measured, result.passed


@pytest.mark.parametrize(
    ("outcomes", "minimum", "expected"),
    [
        ("", None, (None, True)),
        ("ppp", None, (None, None)),
        ("ccc", None, (1.0, True)),
        ("ccp", None, (1.0, None)),
        ("cfp", None, (0.5, False)),
        ("cccf", 0.75, (0.75, True)),
        ("ccpf", 0.75, (2 / 3, None)),
        ("cpff", 0.75, (1 / 3, False)),
        ("ffff", 0.0, (0.0, True)),
    ],
)
def test_success_passes_when_all_ended_and_fails_as_soon_as_it_must(outcomes, minimum, expected):
    assert success(outcomes, minimum) == expected


def test_an_accepted_failure_is_shown_but_does_not_stop():
    assert success("cf", None) == (0.5, False)
    assert success("cf", None, accepted="1") == (0.5, True)
    assert success("cff", None, accepted="1") == (1 / 3, False)


LATENCY = Gate(metric=Metric.LATENCY_P95_MS, max=50.0)
ERRORS = Gate(metric=Metric.ERROR_RATE, max=0.1)


def figures(outcomes: str, windows: list[LatestFigures | None], gate: Gate):
    result = measure(state(outcomes, windows, gate), STAGE)[1]
    return result.measured, result.passed


def test_latency_is_the_worst_device_and_open_until_every_committed_one_has_measured():
    assert figures("cc", [window(5.0), window(9.0)], LATENCY) == (9.0, True)
    assert figures("cc", [window(5.0), None], LATENCY) == (5.0, None)
    assert figures("cp", [window(5.0), window(6.0)], LATENCY) == (6.0, None)
    assert figures("cp", [window(5.0), window(60.0)], LATENCY) == (60.0, False)
    assert figures("cf", [window(5.0), None], LATENCY) == (5.0, True)
    assert figures("cc", [None, None], LATENCY) == (None, None)


def test_error_rate_weighs_devices_by_their_requests():
    assert figures("cc", [window(requests=90), window(requests=10, errors=10)], ERRORS) == (0.1, True)
    assert figures("cc", [window(requests=10), window(requests=10, errors=10)], ERRORS) == (0.5, False)
    assert figures("c", [window(requests=0, probes=3)], ERRORS) == (0.0, True)
    assert figures("c", [window(requests=0, errors=4)], ERRORS) == (1.0, False)


def test_windows_that_measured_nothing_or_belong_to_another_rollout_do_not_count():
    assert figures("c", [window(requests=0)], LATENCY) == (None, None)
    assert figures("c", [window(rollout="r-0")], LATENCY) == (None, None)
    assert figures("c", [window(rollout="")], LATENCY) == (5.0, True)


@pytest.mark.parametrize(
    ("limit", "fleet", "expected"),
    [
        ({"count": 3}, 10, 3),
        ({"percent": 10}, 50, 5),
        ({"percent": 10}, 51, 6),
        ({"percent": 0.1}, 3, 1),
        ({"percent": 29}, 100, 29),
        ({"percent": 100}, 7, 7),
        ({"percent": 50}, 0, 0),
        ({}, 7, 7),
    ],
)
def test_limits(limit, fleet, expected):
    assert stage_limit(StageSpec(name="s", **limit), fleet) == expected
