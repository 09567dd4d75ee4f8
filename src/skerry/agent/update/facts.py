# SPDX-License-Identifier: Apache-2.0
"""Facts, looked up in the world, and the one order of the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from skerry.agent.update.commit import Commit
from skerry.agent.update.contract import Context, Fact, Step, StepRefused, check_order
from skerry.agent.update.fetch import Fetch, plan_of
from skerry.agent.update.self_test import SelfTest
from skerry.agent.update.soak import Soak
from skerry.agent.update.switch import Switch
from skerry.agent.update.trial import Trial
from skerry.agent.update.unpack import Unpack
from skerry.errors import ArtefactError
from skerry.trust.decision import Allowed

STEPS: Final[tuple[Step, ...]] = (Fetch(), Unpack(), SelfTest(), Trial(), Switch(), Soak(), Commit())
check_order(STEPS)


def holds(fact: Fact, context: Context) -> bool:
    return _LOOK[fact](context)


def _permitted(context: Context) -> bool:
    return isinstance(context.permits.for_fetch(context.spec, context.failed), Allowed)


def _stored(context: Context) -> bool:
    try:
        plan = plan_of(context)
    except (StepRefused, ArtefactError):
        return False
    return all(context.store.has(file.digest) for file in plan.marker.files)


def _unpacked(context: Context) -> bool:
    return context.store.marker(context.digest) is not None


def _staged(context: Context) -> bool:
    return context.runners.staged(context.spec.name) == context.digest


def _serving(context: Context) -> bool:
    return context.runners.serving(context.spec.name) == context.digest


def _committed(context: Context) -> bool:
    record = context.record
    return record.attempt is None and record.committed is not None and record.committed.ref.digest == context.digest


_LOOK: Final[dict[Fact, Callable[[Context], bool]]] = {
    Fact.PERMITTED: _permitted,
    Fact.STORED: _stored,
    Fact.UNPACKED: _unpacked,
    Fact.STAGED: _staged,
    Fact.SERVING: _serving,
    Fact.COMMITTED: _committed,
}
