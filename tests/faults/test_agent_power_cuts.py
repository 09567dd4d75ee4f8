# SPDX-License-Identifier: Apache-2.0
"""Power cut at every single write of an update, of an undo and of a fall-back: old or new, whole, and it goes on by itself."""

from __future__ import annotations

import contextlib

import pytest
from msgspec import Struct

from skerry.agent.store import Store
from skerry.agent.update.fetch import NO_SPACE, SPARE_BYTES
from skerry.bundle import oci
from skerry.bundle.blob import content
from skerry.bundle.digest import digest_of
from skerry.errors import StorageError
from skerry.testing.files import Fate, PowerCut
from support.agent_world import LAYOUT, World


class Cut(Struct, frozen=True, kw_only=True):
    operation: int
    torn: bool
    fate: Fate


def prepared() -> World:
    """A device on version 1, asked for version 2."""
    world = World()
    world.assign(world.publisher.refs[0])
    world.rounds()
    assert world.serving() == world.publisher.refs[0].digest
    world.assign(world.publisher.refs[1])
    return world


def writes(world: World) -> int:
    before = world.files.operations
    world.rounds()
    return world.files.operations - before


def sweep(prepare) -> list[Cut]:
    return [
        Cut(operation=number, torn=torn, fate=fate)
        for number in range(writes(prepare()))
        for torn in (False, True)
        for fate in Fate
    ]


def cut(world: World, at: Cut) -> None:
    world.files.cut_after(at.operation, torn_new=at.torn)
    with contextlib.suppress(PowerCut):
        world.rounds()
    world.files.power_on(at.fate)
    assert half_installed(world) == [], at
    world.boot()
    committed = [record.committed.ref.release_seq for record in world.records.all() if record.committed]
    assert set(committed) <= world.gate.raised, f"{at}: committed below its own floor"


def half_installed(world: World) -> list[str]:
    """Blobs and bundles that are visible and not whole."""
    store = Store(world.files, LAYOUT)
    blobs = [name for name in world.files.names(LAYOUT.blobs / "sha256") if not name.startswith(".")]
    wrong = [name for name in blobs if digest_of(content(store.blob(f"sha256:{name}"))) != f"sha256:{name}"]
    for name in world.files.names(LAYOUT.bundles):
        marker = (
            store.marker(f"sha256:{name.removesuffix('.json')}") if name.endswith(".json") and name[0] != "." else None
        )
        wrong += [name] if marker and store.flaw(marker.digest, marker.variant) else []
    return wrong


def check(world: World, at: Cut) -> None:
    assert world.runners.not_whole == [], at
    assert set(world.runners.served) <= world.gate.allowed, at
    assert [path for path in world.files.paths() if path.name.startswith(".")] == [], at


def test_update():
    for at in sweep(prepared):
        world = prepared()
        old, new = world.publisher.refs[:2]
        cut(world, at)
        wanted, world.assignment = world.assignment, None  # the hub is gone: what was committed must serve
        world.rounds()
        assert world.serving() in {old.digest, new.digest}, at
        world.assignment = wanted
        world.rounds()
        assert world.serving() == new.digest, at
        assert world.states(new).count("committed") == 1, at
        check(world, at)


def failing() -> World:
    world = prepared()
    world.runners.bad = {world.publisher.refs[1].digest}
    return world


def test_undo():
    for at in sweep(failing):
        world = failing()
        old, new = world.publisher.refs[:2]
        cut(world, at)
        world.rounds()
        assert world.serving() == old.digest, at
        assert world.states(new).count("undone") == 1, at
        assert world.records.get("w0").failure(new.digest) is not None, at
        check(world, at)


def looping() -> World:
    world = prepared()
    world.rounds()
    world.runners.crash("w0")
    world.runners.looping = {"w0"}
    return world


def test_fall_back():
    for at in sweep(looping):
        world = looping()
        old, new = world.publisher.refs[:2]
        cut(world, at)
        if world.records.get("w0").failure(new.digest) is None:  # it still has to find out: a boot forgets crashes
            world.rounds()
            world.runners.crash("w0")
            world.runners.looping = {"w0"}
        world.rounds()
        assert world.serving() == old.digest, at
        assert world.states(new).count("fell-back") == 1, at
        check(world, at)


def removed() -> World:
    world = prepared()
    world.rounds()
    world.assign()
    return world


def test_removal():
    for at in sweep(removed):
        world = removed()
        cut(world, at)
        world.rounds()
        assert world.serving() == "", at
        assert world.states(world.publisher.refs[1]).count("removed") == 1, at
        assert [path for path in world.files.paths() if "bundles" in path.parts] == [], at


def test_too_little_room_is_refused_before_the_models_first_byte():
    world = prepared()
    old, new = world.publisher.refs[:2]
    asked = len(world.road.asked)
    world.files.fill(free=SPARE_BYTES)
    world.rounds()
    assert world.serving() == old.digest
    assert world.states(new)[-1] == "refused"
    refusal = world.records.get("w0").refusal
    assert refusal is not None
    assert refusal.reason == NO_SPACE
    config = oci.parse_manifest(world.publisher.manifests[new.digest]).config
    assert world.road.asked[asked:] == [(config.digest, 0)]


def test_disk_that_fails_on_the_way_is_tried_again_later():
    world = prepared()
    old, new = world.publisher.refs[:2]
    world.files.broken = StorageError(path="blob", problem="Input/output error")
    world.rounds(10)
    assert world.serving() == old.digest
    assert "Input/output error" in world.updater.problems["w0"]
    world.files.broken = None
    world.rounds(80)
    assert world.serving() == new.digest


@pytest.mark.parametrize("stop_after", [1, 100, 390])
def test_road_that_breaks_is_continued_where_it_broke(stop_after):
    world = prepared()
    world.road.breaks_after = stop_after
    world.rounds(6)
    world.road.breaks_after = None
    world.rounds(80)
    assert world.serving() == world.publisher.refs[1].digest
    assert any(offset for _, offset in world.road.asked)
