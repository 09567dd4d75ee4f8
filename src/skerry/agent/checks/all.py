# SPDX-License-Identifier: Apache-2.0
"""Every check, in the order in which issues are told."""

from __future__ import annotations

from skerry.agent.checks import (
    Issue,
    Observed,
    assignment,
    clock,
    crash_loop,
    disk,
    floors,
    history,
    outbox,
    stale_catalogue,
)

CHECKS = (
    disk.check,
    clock.check,
    crash_loop.check,
    stale_catalogue.check,
    assignment.check,
    floors.check,
    history.check,
    outbox.check,
)


def issues(observed: Observed) -> tuple[Issue, ...]:
    return tuple(issue for check in CHECKS if (issue := check(observed)) is not None)
