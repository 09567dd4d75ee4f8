# SPDX-License-Identifier: Apache-2.0
"""Rollouts as operators start, watch and steer them. What then happens to devices is the controller's doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec.structs import replace

from skerry.effects import Clock, Entropy
from skerry.errors import RolloutRefused, StaleVersion
from skerry.hub.domain.access import Note
from skerry.hub.domain.catalogue import BundleRecord
from skerry.hub.domain.rollouts import ACTIVE, RolloutRecord, StageRecord
from skerry.hub.domain.verdict import Refused
from skerry.hub.rollout.changes import changes_of
from skerry.hub.rollout.draft import NewEvent
from skerry.hub.rollout.planner import stages_of
from skerry.hub.rollout.verbs import Verb, command, decide_create, joined_selector
from skerry.hub.rollout.view import view
from skerry.hub.store.interface import CatalogueStore, DeviceStore, RolloutStore
from skerry.wire.v1.operator import RolloutEvent, RolloutSpec, RolloutStatus, RolloutView

_TRIES = 5
_EVERY = 10_000
_ID_BYTES = 5


class _Store(RolloutStore, DeviceStore, CatalogueStore, Protocol):
    pass


class Rollouts:
    def __init__(self, store: _Store, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    def new_id(self) -> str:
        return f"r-{self._entropy.token(_ID_BYTES).hex()}"

    async def create(
        self, spec: RolloutSpec, *, actor: str, rollout_id: str = "", note: Note | None = None
    ) -> RolloutView:
        """Raises NotFound (bundle, fleet), RolloutRefused with the reason, StaleVersion when others keep being faster."""
        bundle = await self._bundle(spec.bundle)
        selector = await self._selector(spec)
        for _ in range(_TRIES):
            epoch = await self._store.rollout_epoch(spec.workload)
            await self._check(spec, bundle, selector)
            record = RolloutRecord(
                id=rollout_id or self.new_id(),
                spec=spec,
                selector=selector,
                bundle=bundle.ref,
                status=RolloutStatus.RUNNING,
                created=self._clock.now(),
                created_by=actor,
            )
            stages = [StageRecord(index=i, name=stage.name) for i, stage in enumerate(stages_of(spec.stages))]
            created = NewEvent(kind="created", detail=f"{bundle.ref.name} as {spec.workload} by {actor}")
            try:
                await self._store.create_rollout(record, stages, [created], epoch=epoch, note=note)
            except StaleVersion:
                continue
            return await self.view(record.id)
        raise StaleVersion(kind="rollouts of workload", name=spec.workload)

    async def view(self, rollout_id: str) -> RolloutView:
        """Raises NotFound."""
        return view(await self._store.rollout_state(rollout_id))

    async def list(self, *, limit: int, after: str = "") -> tuple[RolloutView, ...]:
        """Newest first; without the single devices."""
        records = await self._store.rollouts(limit=limit, after=after)
        views = [view(await self._store.rollout_state(record.id)) for record in records]
        return tuple(replace(one, devices=()) for one in views)

    async def events(self, rollout_id: str, *, limit: int, after: int = 0) -> tuple[RolloutEvent, ...]:
        """Raises NotFound."""
        await self._store.rollout(rollout_id)
        return await self._store.rollout_events(rollout_id, limit=limit, after=after)

    async def command(self, rollout_id: str, verb: Verb, *, actor: str, note: Note | None = None) -> RolloutView:
        """Raises NotFound, RolloutRefused with the reason, StaleVersion when the rollout keeps changing meanwhile."""
        for _ in range(_TRIES):
            state = await self._store.rollout_state(rollout_id)
            answer = command(state, verb, actor=actor)
            if isinstance(answer, Refused):
                raise RolloutRefused(rollout=rollout_id, action=str(verb), problem=answer.reason)
            changes = changes_of(state, answer.actions, self._clock.now())
            try:
                await self._store.apply_rollout(changes, note=note)
            except StaleVersion:
                continue
            return await self.view(rollout_id)
        raise StaleVersion(kind="rollout", name=rollout_id)

    async def _bundle(self, name: str) -> BundleRecord:
        line, _, rest = name.rpartition("/")
        model, colon, version = rest.rpartition(":")
        if not colon or not model or not version:
            raise RolloutRefused(
                rollout=f"of {name}", action="start", problem="name the bundle as [LINE/]MODEL:VERSION"
            )
        return await self._store.find_bundle(model=model, version=version, line=line)

    async def _selector(self, spec: RolloutSpec) -> dict[str, str]:
        fleet = (await self._store.fleet(spec.fleet)).selector if spec.fleet else {}
        joined = joined_selector(fleet, spec.selector)
        if isinstance(joined, Refused):
            raise _refused(spec, joined)
        return joined

    async def _check(self, spec: RolloutSpec, bundle: BundleRecord, selector: Mapping[str, str]) -> None:
        devices = await self._store.device_ids(selector=selector)
        others = await self._store.rollouts(statuses=ACTIVE, workload=spec.workload, limit=_EVERY)
        held = {other.id: await self._store.rollout_devices(other.id) for other in others}
        verdict = decide_create(spec, bundle, devices=devices, active=held)
        if isinstance(verdict, Refused):
            raise _refused(spec, verdict)


def _refused(spec: RolloutSpec, refused: Refused) -> RolloutRefused:
    return RolloutRefused(rollout=f"of {spec.bundle}", action="start", problem=refused.reason)
