# SPDX-License-Identifier: Apache-2.0
"""One agent per state folder: a lock the kernel lets go of however the agent ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from skerry.effects.disk import make_folder
from skerry.errors import StateLocked, StorageError


class StateLock:
    def __init__(self, path: Path) -> None:
        """Raises StateLocked, StorageError."""
        try:
            make_folder(path.parent)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(path=str(path), problem=error.strerror or str(error)) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise StateLocked(path=str(path.parent)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


def held(path: Path) -> bool:
    """Whether a live agent holds the lock."""
    if not path.exists():
        return False
    try:
        with StateLock(path):
            return False
    except StateLocked:
        return True
