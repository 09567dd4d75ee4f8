# SPDX-License-Identifier: Apache-2.0
"""Stale catalogue: too long without a verified refresh, so nothing new could be installed and a revocation not be seen."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed

LIMIT = 24 * 3600.0


def check(observed: Observed) -> Issue | None:
    age = observed.now - max(observed.refreshed, observed.started, observed.time_floor)
    if age <= LIMIT:
        return None
    return Issue(name="catalogue-stale", detail=f"not refreshed for {age / 3600:.0f} h")
