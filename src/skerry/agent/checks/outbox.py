# SPDX-License-Identifier: Apache-2.0
"""Outbox: full, so that figures and results had to be dropped."""

from __future__ import annotations

from skerry.agent.checks import Issue, Observed


def check(observed: Observed) -> Issue | None:
    if not observed.outbox_dropped:
        return None
    return Issue(name="outbox-full", detail="old figures and results are being dropped")
