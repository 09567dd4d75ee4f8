# SPDX-License-Identifier: Apache-2.0
"""Files in memory that can lose power at any operation.

- What `write`, `remove` and `publish` return from is durable; what `append` wrote is not, until `publish` or `sync_tree`.
- `cut_after(n)` lets n more mutating operations through; the next one raises PowerCut, having either fully happened or
  not at all (`torn_new` decides): this is what fsync + rename + folder fsync promises. The machine is then off.
- `power_on` gives the files as the next boot finds them: an appended tail that was never made durable is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from skerry.errors import StorageError


class PowerCut(BaseException):
    """The machine went dark. Not an Exception: no program catches a power cut."""


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

    def power_on(self) -> None:
        self._left = None
        self._content = dict(self._durable)

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
        for name, data in self._content.items():
            if path in name.parents:
                self._durable[name] = data

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
            self._durable.pop(path, None)

    def names(self, folder: Path) -> tuple[str, ...]:
        depth = len(folder.parts)
        return tuple(sorted({path.parts[depth] for path in self._content if folder in path.parents}))

    def free(self, path: Path) -> int:
        del path  # one file system
        return max(0, self._capacity - self._used())

    # --- inside ---

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
