# SPDX-License-Identifier: Apache-2.0
"""Disk: too little room left to record results and take an update."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed

MINIMUM = 64 * 1024 * 1024


def check(observed: Observed) -> Issue | None:
    if observed.free >= MINIMUM:
        return None
    return Issue(name="disk-low", detail=f"{observed.free // (1024 * 1024)} MiB free")
