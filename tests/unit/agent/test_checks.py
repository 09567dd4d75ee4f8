# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from skerry.agent.checks import Observed
from skerry.agent.checks.all import CHECKS, issues

DAY = 86_400.0
GOOD: dict[str, Any] = {
    "now": 10 * DAY,
    "free": 10**9,
    "time_floor": 10 * DAY,
    "refreshed": 10 * DAY,
    "started": 9 * DAY,
}


def found(**changes: Any) -> list[str]:
    return [issue.text for issue in issues(Observed(**{**GOOD, **changes}))]


def test_a_healthy_device_has_no_issue():
    assert found() == []
    assert len(CHECKS) == 8


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"free": 2**20}, "disk-low: 1 MiB free"),
        ({"time_floor": 10 * DAY + 301}, "clock-behind: 301 s before a time already seen"),
        ({"hub_ahead": 400.0}, "clock-off: +400 s to the hub's clock"),
        ({"hub_ahead": -400.0}, "clock-off: -400 s to the hub's clock"),
        ({"crash_loops": ("eye", "ear")}, "crash-loop: eye, ear"),
        ({"history_broken": "entry 3: gap"}, "history-broken: entry 3: gap"),
        (
            {"floors_damaged": "gone"},
            "floors-damaged: no updates until this device is enrolled again: gone",
        ),
        ({"assignment_refused": "replayed"}, "assignment-refused: replayed"),
        ({"outbox_dropped": 5}, "outbox-full: old figures and results are being dropped"),
        ({"refreshed": 0.0, "time_floor": 8 * DAY, "started": 8.5 * DAY}, "catalogue-stale: not refreshed for 36 h"),
    ],
)
def test_each_trouble_has_its_word(change, text):
    assert found(**change) == [text]


@pytest.mark.parametrize("change", [{"free": 64 * 2**20}, {"time_floor": 10 * DAY + 300}, {"refreshed": 9 * DAY}])
def test_limits_are_not_yet_trouble(change):
    assert found(**change) == []
