# SPDX-License-Identifier: Apache-2.0
"""Files in memory that can lose power at any operation.

- What `write`, `remove` and `publish` return from is durable; what `append`, `clone` and `remove_tree` did is not, before the
  next `sync_tree` or, for an appended file, its `publish`.
- `cut_after(n)` lets n more mutating operations through; the next one raises PowerCut, having either fully happened or
  not at all (`torn_new` decides): this is what fsync + rename + folder fsync promises. The machine is then off.
- `power_on` gives the files as the next boot finds them. What was not durable may be there, wholly, partly, as zeros or not
  at all: `Fate` says which. A write that was cut leaves its unfinished file beside its target.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from skerry.errors import StorageError


class PowerCut(BaseException):
    """The machine went dark. Not an Exception: no program catches a power cut."""


class Fate(StrEnum):
    """Of everything that was not durable when the power went."""

    LOST = "lost"
    KEPT = "kept"
    HALVED = "halved"  # files end in the middle; removals did not happen
    ZEROED = "zeroed"  # files have their length and no content; removals did not happen


class MemoryFiles:
    def __init__(self, *, capacity: int = 1 << 40) -> None:
        self._content: dict[Path, bytes] = {}
        self._durable: dict[Path, bytes] = {}
        self._capacity = capacity
        self._left: int | None = None
        self._torn_new = False
        self.modes: dict[Path, int] = {}
        self.operations = 0
        self.broken: StorageError | None = None  # every `append` raises it

    # --- the power switch ---

    def cut_after(self, operations: int, *, torn_new: bool = False) -> None:
        self._left = operations
        self._torn_new = torn_new

    def power_on(self, fate: Fate = Fate.LOST) -> None:
        self._left = None
        found = {path: _after_power_cut(path, self._content, self._durable, fate) for path in self._all()}
        self._content = {path: data for path, data in found.items() if data is not None}
        self._durable = dict(self._content)

    def fill(self, *, free: int) -> None:
        """From now on only `free` more bytes fit."""
        self._capacity = self._used() + free

    def paths(self) -> tuple[Path, ...]:
        return tuple(sorted(self._content))

    # --- Files ---

    def write(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        self._need(path, len(data))
        dark = self._goes_dark()
        if not dark or self._torn_new:
            self._content[path] = self._durable[path] = data
            self.modes[path] = mode
        else:
            self._content[path.with_name(f".{path.name}.dark.new")] = data
        self._die_if(dark)

    def read(self, path: Path) -> bytes | None:
        return self._content.get(path)

    def remove(self, path: Path) -> None:
        dark = self._goes_dark()
        if not dark or self._torn_new:
            self._content.pop(path, None)
            self._durable.pop(path, None)
        self._die_if(dark)

    def sync_tree(self, path: Path) -> None:
        self._die_if(self._goes_dark())
        for name in self._all():
            if path in name.parents:
                self._make_durable(name)

    # --- Spool ---

    def size(self, path: Path) -> int | None:
        data = self._content.get(path)
        return None if data is None else len(data)

    def append(self, path: Path, data: bytes) -> None:
        if self.broken is not None:
            raise self.broken
        self._need(path, len(data))
        self._die_if(self._goes_dark())
        self._content[path] = self._content.get(path, b"") + data

    def pieces(self, path: Path, size: int = 1 << 20) -> Iterator[bytes]:
        data = self._content.get(path)
        if data is None:
            raise StorageError(path=str(path), problem="No such file or directory")
        for start in range(0, len(data), size):
            yield data[start : start + size]

    def publish(self, source: Path, target: Path) -> None:
        if source not in self._content:
            raise StorageError(path=str(source), problem="No such file or directory")
        dark = self._goes_dark()
        if not dark or self._torn_new:
            data = self._content.pop(source)
            self._durable.pop(source, None)
            self._content[target] = self._durable[target] = data
        self._die_if(dark)

    def clone(self, source: Path, target: Path) -> None:
        if source not in self._content:
            raise StorageError(path=str(source), problem="No such file or directory")
        self._die_if(self._goes_dark())
        self._content[target] = self._content[source]

    def remove_tree(self, folder: Path) -> None:
        for path in [path for path in self._content if folder in path.parents]:
            self._die_if(self._goes_dark())
            self._content.pop(path, None)

    def names(self, folder: Path) -> tuple[str, ...]:
        depth = len(folder.parts)
        return tuple(sorted({path.parts[depth] for path in self._content if folder in path.parents}))

    def free(self, path: Path) -> int:
        del path  # one file system
        return max(0, self._capacity - self._used())

    # --- inside ---

    def _all(self) -> list[Path]:
        return sorted(self._content.keys() | self._durable.keys())

    def _make_durable(self, path: Path) -> None:
        if path in self._content:
            self._durable[path] = self._content[path]
        else:
            self._durable.pop(path, None)

    def _used(self) -> int:
        return sum(map(len, self._content.values()))

    def _need(self, path: Path, size: int) -> None:
        if size > self._capacity - self._used():
            raise StorageError(path=str(path), problem="No space left on device")

    def _goes_dark(self) -> bool:
        self.operations += 1
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0

    @staticmethod
    def _die_if(dark: bool) -> None:  # noqa: FBT001 - private, and the only thing it is told
        if dark:
            raise PowerCut


def _after_power_cut(path: Path, content: dict[Path, bytes], durable: dict[Path, bytes], fate: Fate) -> bytes | None:
    new, old = content.get(path), durable.get(path)
    if new == old or fate is Fate.KEPT:
        return new
    if new is None or fate is Fate.LOST:
        return old
    return new[: len(new) // 2] if fate is Fate.HALVED else bytes(len(new))
