# SPDX-License-Identifier: Apache-2.0
"""Files an engine derives from a model to load it faster the next time, in a folder that belongs to one bundle.

A file's name holds the key it was made for (model, engine, settings, processor) and the digest of its content. Whatever does
not add up is removed and made again: losing a file costs time, never an answer. Nothing is synced to disk for the same reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_MAX_FILES: Final = 4
_SPARE: Final = 256 * 1024 * 1024  # bytes left to others: a derived file is worth less than whatever else wants them
_KEY_LENGTH: Final = 32
_UNFINISHED: Final = ".new-"


def key_of(*parts: str) -> str:
    """Names what a derived file depends on; every part counts, and so do the instructions of this processor."""
    digest = hashlib.sha256()
    for part in (*parts, platform.machine(), _instructions()):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:_KEY_LENGTH]


def _instructions() -> str:
    """As the kernel lists them; empty where it does not."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, words = line.partition(":")
            if name.strip() in {"flags", "Features"}:
                return words.strip()
    return ""


class Derived:
    """The folder must exist. Nothing raises by itself: a full disk, a damaged file or no folder at all means no derived file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> bytes | None:
        """What was derived for `key`, exactly as it was written."""
        for path in self._files(f"{key}-"):
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if path.name == f"{key}-{hashlib.sha256(data).hexdigest()}":
                    return data
            self._remove(path)
        return None

    def write(self, key: str, derive: Callable[[Path], None], *, size: int = 0) -> None:
        """Have `derive` write a file of about `size` bytes, and keep it; what it raises goes on.

        Nothing is done where space is short, and the oldest files go when there are too many.
        """
        if self._free() < size + _SPARE:
            return
        unfinished = self._folder / f"{_UNFINISHED}{key}"
        self._remove(unfinished)
        try:
            derive(unfinished)
            with unfinished.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            unfinished.replace(self._folder / f"{key}-{digest}")
        except OSError as error:
            _log.warning("nothing kept for the next load: %s", error.strerror or error)
        finally:
            self._remove(unfinished)
        for path in self._files("")[:-_MAX_FILES]:
            self._remove(path)

    def _free(self) -> int:
        try:
            system = os.statvfs(self._folder)
        except OSError:
            return 0
        return system.f_bavail * system.f_frsize

    def _files(self, prefix: str) -> list[Path]:
        """The oldest first."""
        try:
            found = [path for path in self._folder.iterdir() if path.name.startswith(prefix)]
            return sorted(found, key=lambda path: path.stat().st_mtime_ns)
        except OSError:
            return []

    @staticmethod
    def _remove(path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
