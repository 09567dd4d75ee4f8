# SPDX-License-Identifier: Apache-2.0
"""Drives every rollout: read the picture, plan, apply, until nothing is left to do; then again a moment later.

It keeps nothing between two looks. A lease spares replicas double work; what keeps the record right is that a plan is
applied wholly and only onto the very version it was made from, so two controllers at once, or one killed at any instant,
do no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from skerry.effects import Clock
from skerry.errors import DatabaseUnavailable, NotFound, StaleVersion
from skerry.hub.rollout.changes import changes_of
from skerry.hub.rollout.planner import plan
from skerry.hub.store.interface import LeaseStore, RolloutStore

LEASE = "rollout controller"

_LEASE_SECONDS = 15.0
_PLANS_AT_ONCE = 50  # of one rollout, before the others get their turn

log = logging.getLogger(__name__)


class _Store(RolloutStore, LeaseStore, Protocol):
    pass


class Controller:
    def __init__(self, store: _Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def tick(self) -> int:
        """Bring every rollout as far as it can go now; how many plans were applied. Raises DatabaseUnavailable."""
        applied = 0
        for rollout_id in await self._store.rollouts_to_plan():
            applied += await self._drive(rollout_id)
        return applied

    async def run(self, holder: str, *, seconds: float, stop: asyncio.Event) -> None:
        """Tick every `seconds` while `holder` has the lease, until `stop` is set; a turn under way is finished first.

        Cancelling in the middle of a transaction would leave its connection, and with SQLite its lock, to chance.
        """
        try:
            while not stop.is_set():
                await self._turn(holder, max(_LEASE_SECONDS, 3 * seconds))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), seconds)
        finally:
            with contextlib.suppress(DatabaseUnavailable):
                await self._store.release_lease(LEASE, holder)

    async def _turn(self, holder: str, lease_seconds: float) -> None:
        try:
            lease = await self._store.acquire_lease(LEASE, holder, seconds=lease_seconds, now=self._clock.now())
            if lease is not None:
                await self.tick()
        except DatabaseUnavailable as error:
            log.warning("looking at the rollouts waits: %s", error)
        except Exception:
            log.exception("a look at the rollouts failed; the next one tries again")

    async def _drive(self, rollout_id: str) -> int:
        for done in range(_PLANS_AT_ONCE):
            try:
                if not await self._step(rollout_id):
                    return done
            except StaleVersion as error:
                log.info("rollout %s changed while it was planned: %s", rollout_id, error)
                return done
            except NotFound:
                return done
        return _PLANS_AT_ONCE

    async def _step(self, rollout_id: str) -> bool:
        """Plan and apply once; False when there is nothing to do."""
        state = await self._store.rollout_state(rollout_id)
        now = self._clock.now()
        actions = plan(state, now).actions
        if not actions:
            return False
        await self._store.apply_rollout(changes_of(state, actions, now))
        log.info("rollout %s: %s", rollout_id, ", ".join(sorted({type(action).__name__ for action in actions})))
        return True
