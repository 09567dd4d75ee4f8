# SPDX-License-Identifier: Apache-2.0
"""Crash loop: a workload's runner ends again and again."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed


def check(observed: Observed) -> Issue | None:
    if not observed.crash_loops:
        return None
    return Issue(name="crash-loop", detail=", ".join(observed.crash_loops))
