# SPDX-License-Identifier: Apache-2.0
"""The controller and the rollout service over a real SQLite file and a virtual clock."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from msgspec.structs import replace

from contracts.store.values import NOW, bundle, bundle_record, enrolled, report, workload
from skerry.errors import DatabaseUnavailable, NotFound, RolloutRefused
from skerry.hub.domain import DesiredWorkload, Fleet
from skerry.hub.rollout.verbs import Verb
from skerry.hub.services.controller import LEASE, Controller
from skerry.hub.services.rollouts import Rollouts
from skerry.hub.store.sql import open_store
from skerry.testing.clock import VirtualClock
from skerry.wire.v1.operator import RolloutSpec, RolloutStatus, StageSpec
from skerry.wire.v1.report import WorkloadState

pytestmark = pytest.mark.anyio

SPEC = RolloutSpec(
    workload="digits",
    bundle="digits:2.0",
    selector={"site": "kiel"},
    stages=(StageSpec(name="one", count=1), StageSpec(name="rest")),
    deadline_seconds=60.0,
)


class Counted:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def token(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


class Scene:
    def __init__(self, store) -> None:
        self.store = store
        self.clock = VirtualClock(NOW)
        self.rollouts = Rollouts(store, self.clock, Counted())
        self.controller = Controller(store, self.clock)
        self.seqs: dict[str, int] = {}

    async def says(self, device_id, state, *, version=2, rollout="r-0000000001"):
        self.seqs[device_id] = seq = self.seqs.get(device_id, 0) + 1
        running = bundle(version if state is WorkloadState.COMMITTED else 1).digest
        body = workload(state, version=version, rollout=rollout, running=running)
        await self.store.add_reports(device_id, [report(seq, body)], received=self.clock.now())

    async def shall_run(self, device_id):
        (one,) = (await self.store.desired(device_id)).workloads
        return one.bundle


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def scene(tmp_path, anyio_backend):
    store = await open_store(f"sqlite:///{tmp_path / 'hub.db'}")
    await enrolled(store, "d1", "d2", "d3", site="kiel")
    for device_id in ("d1", "d2", "d3"):
        await store.set_desired(device_id, "digits", DesiredWorkload(workload="digits", bundle=bundle(1)))
    await store.put_bundle(bundle_record(2))
    yield Scene(store)
    await store.close()


async def test_from_created_to_done(scene):
    view = await scene.rollouts.create(SPEC, actor="anna")
    assert (view.id, view.status, view.created_by) == ("r-0000000001", RolloutStatus.RUNNING, "anna")
    assert await scene.controller.tick() == 2
    assert await scene.controller.tick() == 0
    assert await scene.shall_run("d1") == bundle(2)
    assert await scene.shall_run("d2") == bundle(1)
    await scene.says("d1", WorkloadState.COMMITTED)
    await scene.controller.tick()
    assert await scene.shall_run("d3") == bundle(2)
    await scene.says("d2", WorkloadState.COMMITTED)
    await scene.says("d3", WorkloadState.COMMITTED)
    await scene.controller.tick()
    view = await scene.rollouts.view(view.id)
    assert view.status is RolloutStatus.DONE
    assert [(stage.total, stage.committed) for stage in view.stages] == [(1, 1), (2, 2)]
    assert (await scene.rollouts.list(limit=10))[0].devices == ()


async def test_silence_undoes_and_quarantines(scene):
    await scene.rollouts.create(SPEC, actor="anna")
    await scene.controller.tick()
    scene.clock.advance(60)
    await scene.controller.tick()
    view = await scene.rollouts.view("r-0000000001")
    assert view.status is RolloutStatus.UNDOING
    assert await scene.shall_run("d1") == bundle(1)
    with pytest.raises(RolloutRefused, match="quarantined"):
        await scene.rollouts.create(SPEC, actor="anna")
    scene.clock.advance(60)
    await scene.controller.tick()
    view = await scene.rollouts.view("r-0000000001")
    assert view.status is RolloutStatus.UNDONE
    assert view.reason.endswith("not confirmed back: edge-d1")
    await scene.says("d1", WorkloadState.COMMITTED, version=1)
    await scene.controller.tick()
    (device,) = (await scene.rollouts.view("r-0000000001")).devices
    assert device.state == "undone"


async def test_operators_steer(scene):
    await scene.rollouts.create(SPEC, actor="anna")
    view = await scene.rollouts.command("r-0000000001", Verb.PAUSE, actor="bert")
    assert (view.status, view.reason) == (RolloutStatus.PAUSED, "paused by bert")
    assert await scene.controller.tick() == 0
    with pytest.raises(RolloutRefused, match="it is paused"):
        await scene.rollouts.command("r-0000000001", Verb.PAUSE, actor="bert")
    await scene.rollouts.command("r-0000000001", Verb.RESUME, actor="bert")
    assert await scene.controller.tick() == 2
    await scene.rollouts.command("r-0000000001", Verb.UNDO, actor="bert")
    await scene.controller.tick()
    assert await scene.shall_run("d1") == bundle(1)
    kinds = [event.kind for event in await scene.rollouts.events("r-0000000001", limit=100)]
    assert kinds == ["created", "paused", "running", "stage-started", "assigned", "undoing", "undoing"]
    assert (await scene.store.bundle(bundle(2).digest)).quarantined is None
    with pytest.raises(NotFound):
        await scene.rollouts.command("r-9", Verb.UNDO, actor="bert")


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"bundle": "digits"}, RolloutRefused, "MODEL:VERSION"),
        ({"bundle": "digits:9.9"}, NotFound, "digits:9.9"),
        ({"bundle": "other/digits:2.0"}, NotFound, "other"),
        ({"fleet": "nowhere"}, NotFound, "nowhere"),
        ({"fleet": "bonn"}, RolloutRefused, "label site"),
        ({"selector": {"site": "mars"}}, RolloutRefused, "no device matches"),
        ({"deadline_seconds": 0.0}, RolloutRefused, "deadline"),
    ],
)
async def test_what_cannot_start_says_why(scene, change, error, problem):
    await scene.store.put_fleet(Fleet(name="bonn", selector={"site": "bonn"}))
    with pytest.raises(error, match=problem):
        await scene.rollouts.create(replace(SPEC, **change), actor="anna")
    assert await scene.store.rollouts() == ()


async def test_two_active_rollouts_never_share_a_device(scene):
    await scene.rollouts.create(SPEC, actor="anna")
    with pytest.raises(RolloutRefused, match="r-0000000001 holds workload digits of 3"):
        await scene.rollouts.create(SPEC, actor="anna")
    other = RolloutSpec(workload="faces", bundle="demo/digits:2.0", selector={"site": "kiel"})
    assert (await scene.rollouts.create(other, actor="anna")).status is RolloutStatus.RUNNING


async def test_of_rollouts_created_at_once_for_the_same_devices_one_starts(scene):
    tries = (scene.rollouts.create(SPEC, actor=f"a{n}") for n in range(4))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, RolloutRefused) for outcome in outcomes) == 3


async def test_controllers_ticking_at_once_do_each_thing_once(scene):
    await scene.rollouts.create(SPEC, actor="anna")
    await asyncio.gather(*(Controller(scene.store, scene.clock).tick() for _ in range(5)))
    await scene.controller.tick()
    assert (await scene.store.desired("d1")).version == 2
    kinds = [event.kind for event in await scene.rollouts.events("r-0000000001", limit=100)]
    assert kinds == ["created", "stage-started", "assigned"]


async def test_it_runs_while_it_has_the_lease_and_gives_it_back(scene):
    await scene.rollouts.create(SPEC, actor="anna")
    assert await scene.store.acquire_lease(LEASE, "other", seconds=60, now=NOW) is not None
    stop = asyncio.Event()
    running = asyncio.create_task(scene.controller.run("me", seconds=0.01, stop=stop))
    await asyncio.wait([running], timeout=0.2)
    assert (await scene.store.desired("d1")).version == 1
    changed = asyncio.create_task(scene.store.wait_for_change("d1", seen_version=1, timeout=20))
    await scene.store.release_lease(LEASE, "other")
    assert await asyncio.wait_for(changed, 20) == 2
    stop.set()
    await asyncio.wait_for(running, 10)
    assert await scene.store.acquire_lease(LEASE, "other", seconds=60, now=NOW) is not None


async def test_a_failing_look_is_followed_by_the_next(scene, caplog):
    class Flaky:
        def __init__(self, store) -> None:
            self._store = store
            self.failures = 2

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def rollouts_to_plan(self):
            if self.failures:
                self.failures -= 1
                raise OSError("the disk is gone for a moment")
            return await self._store.rollouts_to_plan()

    await scene.rollouts.create(SPEC, actor="anna")
    flaky = Flaky(scene.store)
    stop = asyncio.Event()
    running = asyncio.create_task(Controller(flaky, scene.clock).run("me", seconds=0.01, stop=stop))
    assert await scene.store.wait_for_change("d1", seen_version=1, timeout=20) == 2
    stop.set()
    await asyncio.wait_for(running, 10)
    assert flaky.failures == 0
    assert "a look at the rollouts failed" in caplog.text


async def test_a_database_that_is_away_is_one_line_in_the_log(scene, caplog):
    asked = []

    async def away(*args, **_more):
        asked.append(args)
        raise DatabaseUnavailable(problem="connection refused")

    scene.store.acquire_lease = scene.store.release_lease = away
    stop = asyncio.Event()
    running = asyncio.create_task(Controller(scene.store, scene.clock).run("me", seconds=0.001, stop=stop))
    while len(asked) < 3:
        await asyncio.wait([running], timeout=0.01)
    stop.set()
    await asyncio.wait_for(running, 10)
    assert len(caplog.records) >= 3
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert not any(record.exc_info for record in caplog.records)
