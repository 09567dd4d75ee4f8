# SPDX-License-Identifier: Apache-2.0
from hashlib import sha256
from pathlib import Path

import pytest

from skerry.errors import StateDamaged
from skerry.testing.files import MemoryFiles
from skerry.trust import floors
from skerry.trust.floors import CatalogueFloor, Floors

PATH = Path("/state/floors")


def committed(now, number, replaced, *, floor_seq=0):
    return floors.raise_release(
        now, line="vision", model="digits", committed=number, replaced=replaced, floor_seq=floor_seq
    )


def test_first_release_sets_no_floor():
    assert committed(Floors(), 5, None).release("vision", "digits") == 0


def test_floor_is_the_direct_predecessor():
    now = committed(committed(Floors(), 1, None), 5, 1)
    assert now.release("vision", "digits") == 1
    assert committed(now, 7, 5).release("vision", "digits") == 5


def test_undo_does_not_raise_the_floor_to_what_was_undone():
    now = committed(Floors(), 7, 5)
    assert committed(now, 5, 7).release("vision", "digits") == 5


def test_publishers_floor_counts_up_to_its_own_release():
    assert committed(Floors(), 7, 5, floor_seq=6).release("vision", "digits") == 6
    assert committed(Floors(), 7, None, floor_seq=900).release("vision", "digits") == 7


def test_models_have_floors_of_their_own():
    now = committed(Floors(), 7, 5)
    assert now.release("vision", "doors") == 0
    assert now.release("audio", "digits") == 0


def test_time_is_the_later_of_clock_and_floor():
    now = floors.raise_time(Floors(), 100.0)
    assert floors.effective_now(50.0, now) == 100.0
    assert floors.effective_now(150.0, now) == 150.0
    assert floors.raise_time(now, 50.0) == now


def test_older_assignment_changes_nothing():
    now = floors.raise_assignment(Floors(), sequence=5, digest="a", keys=["k"])
    assert floors.raise_assignment(now, sequence=4, digest="b", keys=["k"]) == now


def test_assignments_count_under_the_keys_that_are_still_named():
    now = floors.raise_assignment(Floors(), sequence=5, digest="a", keys=["k"])
    now = floors.raise_assignment(now, sequence=7, digest="b", keys=["l"])
    assert [now.sequence(keys) for keys in (["k", "l"], ["l"], ["k"], ["m"], [])] == [7, 7, 5, 0, 0]


def test_assignments_of_a_file_without_keys_count_under_any():
    assert Floors(assignment_sequence=9).sequence(["k"]) == 9


def test_file_of_another_version_is_no_damage():
    """A field more, or one less, than this agent knows: its checksum is over the bytes as they stand."""
    files = MemoryFiles()
    content = b'{"time":5.0,"from_the_future":1}'
    check = f"sha256:{sha256(content).hexdigest()}".encode()
    files.write(PATH, b'{"schema":"skerry/floors/v1","floors":%b,"check":"%b"}' % (content, check))
    assert floors.load(files, PATH) == Floors(time=5.0)


def test_catalogue_versions_count_under_the_same_online_keys_only():
    seen = CatalogueFloor(root=2, timestamp=9, snapshot=8, online_keys="k")
    now = floors.raise_catalogue(Floors(), seen)
    assert "timestamp" in CatalogueFloor(root=2, timestamp=8, snapshot=8, online_keys="k").below(now.catalogue)
    assert "snapshot" in CatalogueFloor(root=2, timestamp=9, snapshot=7, online_keys="k").below(now.catalogue)
    targets = CatalogueFloor(root=2, timestamp=9, snapshot=8, targets=4, online_keys="k")
    assert "targets" in seen.below(targets)
    assert "root" in CatalogueFloor(root=1, timestamp=99, snapshot=99, online_keys="other").below(now.catalogue)
    assert CatalogueFloor(root=3, timestamp=1, snapshot=1, online_keys="other").below(now.catalogue) == ""
    assert floors.raise_catalogue(now, CatalogueFloor(root=1)) == now


def test_saved_floors_come_back():
    files = MemoryFiles()
    now = committed(floors.raise_assignment(floors.raise_time(Floors(), 1.5), sequence=3, digest="d", keys=["k"]), 7, 5)
    floors.save(files, PATH, now)
    assert floors.load(files, PATH) == now
    assert files.modes[PATH] == 0o600


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"{}", b"[]", b'{"schema":"other","floors":{},"check":""}'])
def test_damaged_file_stops_the_device(data):
    files = MemoryFiles()
    files.write(PATH, data)
    with pytest.raises(StateDamaged):
        floors.load(files, PATH)
    with pytest.raises(StateDamaged):
        floors.load(files, PATH, missing_ok=True)


def test_missing_file_is_only_right_at_the_first_start():
    files = MemoryFiles()
    assert floors.load(files, PATH, missing_ok=True) == Floors()
    with pytest.raises(StateDamaged):
        floors.load(files, PATH)


def test_every_flipped_bit_is_noticed():
    files = MemoryFiles()
    floors.save(files, PATH, committed(Floors(time=1_800_000_000.0), 7, 5))
    genuine = files.read(PATH)
    assert genuine is not None
    for position in range(len(genuine)):
        damaged = bytearray(genuine)
        damaged[position] ^= 1
        files.write(PATH, bytes(damaged))
        try:
            assert floors.load(files, PATH) == committed(Floors(time=1_800_000_000.0), 7, 5)
        except StateDamaged:
            continue
