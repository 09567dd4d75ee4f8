# SPDX-License-Identifier: Apache-2.0
"""Clock: behind a time this device has seen proven, or far from the hub's."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed

TOLERANCE = 300.0


def check(observed: Observed) -> Issue | None:
    behind = observed.time_floor - observed.now
    if behind > TOLERANCE:
        return Issue(name="clock-behind", detail=f"{behind:.0f} s before a time already seen")
    if abs(observed.hub_ahead) > TOLERANCE:
        return Issue(name="clock-off", detail=f"{observed.hub_ahead:+.0f} s to the hub's clock")
    return None
