# SPDX-License-Identifier: Apache-2.0
"""Floors: what a device will never accept again. They stop what TUF alone lets through.

- `releases`: an old model re-published, correctly signed, under a new version;
- `time`: a clock set back to when old metadata was still valid;
- `catalogue`: the local metadata wiped and an old repository replayed;
- `assignment_*`: an older assignment replayed, or two different ones with the same number.

They live outside the catalogue's metadata folder, so that wiping that folder wins an attacker nothing. They only rise.
The pure functions return new floors; `load` and `save` are the shell.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from skerry.effects import Files
from skerry.errors import StateDamaged

FILE_MODE = 0o600


class CatalogueFloor(Struct, frozen=True, kw_only=True):
    """Versions of the catalogue seen so far. TUF's own record of them is in the metadata folder and can be wiped with it."""

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: int = 0
    online_keys: str = ""  # digest of the names of the timestamp and snapshot keys these versions were signed with

    def below(self, floor: CatalogueFloor) -> str:
        """What is older here than `floor` allows; empty when nothing is.

        All but the root's only count under the same online keys: replacing the keys is how a hub recovers when a thief of
        them ran the version numbers up.
        """
        for role in _ROLES if self.online_keys == floor.online_keys else _ROLES[:1]:
            here, seen = getattr(self, role), getattr(floor, role)
            if here < seen:
                return f"{role} version {here}, seen before: {seen}"
        return ""


_ROLES = ("root", "timestamp", "snapshot", "targets")


class Floors(Struct, frozen=True, kw_only=True):
    time: float = 0.0  # seconds since the epoch; no earlier time is believed
    assignment_sequence: int = 0  # of the last accepted assignment
    assignment_digest: str = ""  # of its payload
    assignment_keys: dict[str, int] = {}  # name of a key -> highest sequence accepted under it
    catalogue: CatalogueFloor = CatalogueFloor()
    releases: dict[str, int] = {}  # "line/model" -> lowest release_seq still allowed

    def release(self, line: str, model: str) -> int:
        return self.releases.get(release_key(line, model), 0)

    def sequence(self, keys: Collection[str]) -> int:
        """Below it every assignment is a replay, while the catalogue names `keys`.

        What was accepted under a key that is named no more does not count: replacing the key is how a hub recovers when a
        thief of it ran the numbers up, and nothing signed with it can be replayed any more.
        """
        if not self.assignment_keys:  # written before they were kept by key
            return self.assignment_sequence
        return max((highest for key, highest in self.assignment_keys.items() if key in keys), default=0)


class _Stored(Struct, frozen=True, kw_only=True):
    schema: Literal["skerry/floors/v1"] = "skerry/floors/v1"
    floors: msgspec.Raw
    check: str  # of the bytes of `floors`: a flipped bit in a number would otherwise go unnoticed


def release_key(line: str, model: str) -> str:
    return f"{line}/{model}"


def effective_now(clock_now: float, floors: Floors) -> float:
    """The time to decide with: the clock's, unless it went back behind what was already seen."""
    return max(clock_now, floors.time)


def raise_time(floors: Floors, now: float) -> Floors:
    """Call only with the time a successful catalogue refresh was made at.

    The signed expiry dates bound that time from above: a clock that jumped years ahead makes the refresh fail, and so
    cannot push the floor to where every later catalogue looks expired.
    """
    return msgspec.structs.replace(floors, time=max(floors.time, float(now)))


def raise_catalogue(floors: Floors, seen: CatalogueFloor) -> Floors:
    """Remember the versions of a successful refresh. Anything below the floors changes nothing."""
    if seen.below(floors.catalogue):
        return floors
    return msgspec.structs.replace(floors, catalogue=seen)


def raise_assignment(floors: Floors, *, sequence: int, digest: str, keys: Collection[str]) -> Floors:
    """Remember an accepted assignment, signed by `keys`. One below what was accepted under them changes nothing."""
    if sequence < floors.sequence(keys):
        return floors
    return msgspec.structs.replace(
        floors,
        assignment_sequence=sequence,
        assignment_digest=digest,
        assignment_keys={**floors.assignment_keys, **dict.fromkeys(keys, sequence)},
    )


def raise_release(
    floors: Floors, *, line: str, model: str, committed: int, replaced: int | None, floor_seq: int = 0
) -> Floors:
    """Floors after the commit of release `committed` in place of `replaced` (None: nothing ran before).

    The new floor is max(old floor, floor_seq, min(committed, replaced)): one step back to the direct predecessor stays
    possible, everything older is gone for good. `floor_seq`, the publisher's word, counts up to `committed` only.
    """
    key = release_key(line, model)
    candidates = [floors.releases.get(key, 0), min(floor_seq, committed)]
    if replaced is not None:
        candidates.append(min(committed, replaced))
    return msgspec.structs.replace(floors, releases={**floors.releases, key: max(candidates)})


def load(files: Files, path: Path, *, missing_ok: bool = False) -> Floors:
    """Stored floors. Raises StateDamaged for a damaged file, and for a missing one unless `missing_ok` (first start).

    Fail closed: a device whose floors are gone must not start again from zero by itself.
    """
    data = files.read(path)
    if data is None:
        if missing_ok:
            return Floors()
        raise StateDamaged(path=str(path), problem="the floors file is missing")
    try:
        stored = msgspec.json.decode(data, type=_Stored)
        floors = msgspec.json.decode(stored.floors, type=Floors)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateDamaged(path=str(path), problem=f"not a floors file: {error}") from error
    if stored.check != _check(bytes(stored.floors)):
        raise StateDamaged(path=str(path), problem="its checksum does not match")
    return floors


def save(files: Files, path: Path, floors: Floors) -> None:
    """Raises StorageError; the old floors then still stand."""
    data = msgspec.json.encode(floors, order="sorted")
    stored = _Stored(floors=msgspec.Raw(data), check=_check(data))
    files.write(path, msgspec.json.encode(stored, order="sorted"), mode=FILE_MODE)


def _check(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"
