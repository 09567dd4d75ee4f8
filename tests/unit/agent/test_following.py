# SPDX-License-Identifier: Apache-2.0
"""The follower with the real catalogue, floors and decisions over a real disk; its hub and its clock are the test's."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.agent.following import Follower
from skerry.agent.history import History
from skerry.agent.outbox import Outbox
from skerry.agent.permits import Permits
from skerry.agent.state import Layout
from skerry.agent.transport import Backoff, Fetched
from skerry.errors import CatalogueRefused, HubUnreachable, StateDamaged, StorageError
from skerry.trust import floors
from skerry.wire.v1.device import ASSIGNMENT_KEYS_TARGET
from support.victim import DEVICE, Owner, Victim, keys_file

DAY = 86_400.0
REFRESH = 900.0


class Dice:
    def token(self, size: int) -> bytes:
        return b"\xff" * size


class Road:
    """The hub's answer to the only question; how long each was to wait is kept."""

    def __init__(self) -> None:
        self.envelope = b""
        self.number = 0
        self.away = False
        self.sent = 0
        self.waits: list[float] = []
        self.clock_offset = 0.0

    def put(self, envelope: bytes) -> None:
        self.envelope = envelope
        self.number += 1

    def assignment(self, *, etag: str = "", wait: float = 0.0) -> Fetched | None:
        self.waits.append(wait)
        if self.away:
            raise HubUnreachable(url="hub", problem="away")
        if not self.envelope or etag == f'"{self.number}"':
            return None
        self.sent += 1
        return Fetched(envelope=self.envelope, etag=f'"{self.number}"')


class Device:
    def __init__(self, folder: Path) -> None:
        self.owner = Owner()
        self.victim = Victim(folder / "victim", self.owner)
        self.clock = self.victim.clock
        self.layout = Layout(folder / "state")
        self.road = Road()
        self.outbox = Outbox(folder / "outbox.db")
        self.changes = 0
        floors.save(self.victim.files, self.layout.floors, floors.Floors())
        self.boot()

    def boot(self) -> None:
        self.permits = Permits(self.victim.catalogue(), self.victim.files, self.layout, self.clock, device_id=DEVICE)
        self.follower = Follower(
            road=self.road,  # type: ignore[arg-type] # the one call a follower makes
            permits=self.permits,
            history=History(self.outbox, device_id=DEVICE, private_key=Ed25519PrivateKey.generate()),
            files=self.victim.files,
            layout=self.layout,
            clock=self.clock,
            backoff=Backoff(Dice()),
            changed=self._changed,
            poll=30.0,
            refresh_every=REFRESH,
        )
        self.follower.restore()

    def _changed(self) -> None:
        self.changes += 1

    def round(self) -> float:
        return self.follower.round(threading.Event())

    def later(self, seconds: float = REFRESH) -> None:
        self.clock.advance(seconds)
        self.round()

    def sequence(self) -> int:
        """Of the assignment in force; 0 = none."""
        return self.follower.assignment.sequence if self.follower.assignment else 0

    def history(self) -> list[str]:
        said = self.follower.history.entries()
        return [" ".join([entry.kind, str(entry.fields.get("reason", ""))]).strip() for entry in said]

    def name_key(self, key: Ed25519PrivateKey) -> None:
        self.owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(key))
        self.owner.repository.publish("targets")


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path)
    yield made
    made.outbox.close()


def test_follows_and_restores_what_it_followed(device):
    device.road.put(device.owner.assign(sequence=3))
    device.round()
    assert device.sequence() == 3
    assert device.layout.assignment.read_bytes() == device.road.envelope
    device.road.away = True
    device.boot()
    assert device.sequence() == 3
    device.round()
    assert (device.sequence(), device.follower.reached) == (3, False)
    assert device.history() == ["assignment-accepted"]


def test_what_was_refused_for_a_wrong_clock_is_followed_when_the_clock_is_right(device):
    """The hub answers "not modified" from then on: nobody sends the document a second time."""
    device.round()
    device.road.put(device.owner.assign(sequence=3))
    device.clock.jump(9 * 365 * DAY)
    device.round()
    assert device.sequence() == 0
    device.clock.jump(-9 * 365 * DAY)
    device.round()
    assert (device.sequence(), device.road.sent) == (3, 1)
    assert device.history() == ["catalogue-refused freeze", "assignment-refused expired", "assignment-accepted"]


def test_a_clock_that_is_slewed_is_no_reason_to_ask_the_catalogue_again(device):
    device.round()
    asked = len(device.victim.memory.requests)
    for _ in range(20):
        device.clock.jump(2.0)
        device.round()
    assert len(device.victim.memory.requests) == asked


@pytest.mark.parametrize("offset", [500.0, -500.0])
def test_clock_far_from_the_hubs_is_seen_also_when_nothing_is_accepted(device, offset):
    device.road.clock_offset = offset
    device.round()
    assert device.follower.hub_ahead == offset


def test_what_a_stale_catalogue_could_not_judge_is_followed_once_it_is_mended(device):
    """A new hub key, and the catalogue that names it is held back for a while."""
    device.round()
    key = device.owner.hub_key = Ed25519PrivateKey.generate()
    device.road.put(device.owner.assign(sequence=3))
    device.round()
    assert device.sequence() == 0
    device.name_key(key)
    device.later()
    assert (device.sequence(), device.road.sent) == (3, 1)


def test_disowned_key_takes_its_assignment_with_it_at_the_next_refresh(device):
    stolen = device.owner.hub_key
    device.road.put(device.owner.assign(sequence=9, key=stolen))
    device.round()
    assert device.sequence() == 9
    device.name_key(Ed25519PrivateKey.generate())
    changes = device.changes
    device.later(REFRESH - 1)
    assert device.sequence() == 9
    device.later(1)
    assert device.sequence() == 0
    assert device.changes == changes + 1
    device.later()
    assert device.history() == ["assignment-accepted", "assignment-refused unknown-key"]
    device.boot()
    assert device.sequence() == 0


def test_disowned_key_takes_its_assignment_although_the_hub_sends_another_refused_one(device):
    device.road.put(device.owner.assign(sequence=9))
    device.round()
    device.road.put(device.owner.assign(sequence=8))
    device.round()
    assert device.sequence() == 9
    device.name_key(Ed25519PrivateKey.generate())
    device.later()
    assert device.sequence() == 0


def test_expired_in_force_is_none_until_it_is_renewed(device):
    device.road.put(device.owner.assign(sequence=1, lifetime=3600.0))
    device.round()
    device.later(3600.0)
    assert device.sequence() == 0
    device.road.put(device.owner.assign(sequence=2, now=device.clock.now()))
    device.round()
    assert device.sequence() == 2


def test_refused_catalogue_leaves_the_verified_one_and_is_said_once(device):
    device.road.put(device.owner.assign(sequence=1))
    device.round()
    stamp = device.owner.repository.files["timestamp.json"]
    device.owner.repository.files["timestamp.json"] = b"{}"
    for _ in range(3):
        device.later()
    assert device.sequence() == 1
    assert device.history() == ["assignment-accepted", "catalogue-refused malformed"]
    device.owner.repository.files["timestamp.json"] = stamp
    device.later()
    device.owner.repository.files["timestamp.json"] = b"{}"
    device.later()
    assert device.history()[2:] == ["catalogue-refused malformed"]


def test_new_document_is_judged_at_once_even_when_the_catalogue_cannot_be_fetched_at_first(device):
    """The hub sent it and went away: the next question does not wait before the document is looked at."""
    device.round()
    device.road.put(device.owner.assign(sequence=1))
    files, device.victim.memory.files = device.victim.memory.files, {}
    assert device.round() > 0
    assert (device.sequence(), device.follower.reached) == (0, False)
    device.victim.memory.files = files
    device.round()
    assert device.sequence() == 1
    assert device.road.waits == [0.0, 30.0, 0.0]


def test_nothing_is_followed_on_lost_floors_and_the_hub_is_not_asked_in_a_tight_loop(device):
    """Starting again from zero would let every replay in."""
    device.road.put(device.owner.assign(sequence=1))
    device.round()
    device.layout.floors.unlink()
    device.boot()
    assert device.sequence() == 0
    pauses = [device.round() for _ in range(4)]
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert (device.sequence(), device.follower.reached) == (0, True)
    assert not device.layout.floors.exists()
    for question in (device.permits.refresh, lambda: device.permits.entry("vision/digits/1.0.0.json")):
        with pytest.raises(StateDamaged):
            question()
    with pytest.raises(StateDamaged):
        device.permits.committed(line="vision", model="digits", release_seq=1, replaced=None, floor_seq=0)


def test_floors_that_cannot_be_written_stop_the_acceptance(device):
    """The floor is durable before the assignment counts."""
    device.round()
    device.road.put(device.owner.assign(sequence=2))
    device.layout.floors.unlink()
    device.layout.floors.mkdir()
    device.round()
    assert device.sequence() == 0
    assert not device.layout.assignment.exists()
    device.layout.floors.rmdir()
    device.round()
    assert device.sequence() == 2


def test_wiped_catalogue_folder_is_no_way_back(device):
    recorded = device.owner.repository.recorded()
    old = device.owner.assign(sequence=1)
    device.owner.release("1.0.0", 1)
    device.road.put(device.owner.assign(sequence=2))
    device.round()
    shutil.rmtree(device.victim.metadata)
    device.victim.memory.files = recorded
    device.boot()
    device.road.put(old)
    device.round()
    assert device.sequence() == 0
    assert "catalogue-refused rollback" in device.history()
    with pytest.raises(CatalogueRefused):
        device.permits.entry("vision/digits/1.0.0.json")


def test_an_assignment_that_cannot_be_kept_is_not_followed(device, monkeypatch):
    """Else a restart would go back to the one before."""
    ref = device.owner.release("1.0.0", 1)
    device.road.put(device.owner.assign(ref, sequence=1))
    device.round()
    device.road.put(device.owner.assign(ref, sequence=2))
    write = device.victim.files.write

    def full(path, data, **options):
        if path == device.layout.assignment:
            raise StorageError(path=str(path), problem="No space left on device")
        write(path, data, **options)

    monkeypatch.setattr(device.victim.files, "write", full)
    device.round()
    assert device.sequence() == 1
    monkeypatch.undo()
    device.round()
    assert device.sequence() == 2
