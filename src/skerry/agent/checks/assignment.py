# SPDX-License-Identifier: Apache-2.0
"""Assignment: the hub gives one this device does not follow, so nothing the hub asks for will happen here."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed


def check(observed: Observed) -> Issue | None:
    if not observed.assignment_refused:
        return None
    return Issue(name="assignment-refused", detail=observed.assignment_refused)
