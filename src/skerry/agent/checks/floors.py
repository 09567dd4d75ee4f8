# SPDX-License-Identifier: Apache-2.0
"""Floors: gone or damaged, so nothing is installed any more; what runs runs on."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed


def check(observed: Observed) -> Issue | None:
    if not observed.floors_damaged:
        return None
    return Issue(
        name="floors-damaged", detail=f"no updates until this device is enrolled again: {observed.floors_damaged}"
    )
