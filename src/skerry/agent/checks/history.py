# SPDX-License-Identifier: Apache-2.0
"""History: the chain on this device does not verify."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed


def check(observed: Observed) -> Issue | None:
    if not observed.history_broken:
        return None
    return Issue(name="history-broken", detail=observed.history_broken)
