# SPDX-License-Identifier: Apache-2.0
"""Memory that another process may write to, but not shrink: reading what was cut off would end this process (SIGBUS)."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

from skerry.errors import Overloaded

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedMemory:
    """`size` bytes, zeroed and there (not only promised). `fd` is for the other side and closed by `shared`.

    Nothing unmaps it but the end of its last reader, so a worker that still runs over it is safe when its client is gone.
    """

    def __init__(self, size: int) -> None:
        """Raises Overloaded when the machine has no room for it."""
        self.fd = os.memfd_create("skerry-slot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(self.fd, 0, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            self._map = mmap.mmap(self.fd, size)
        except OSError as error:
            self.shared()
            raise Overloaded(retry_after=1) from error
        self.view = memoryview(self._map)

    def shared(self) -> None:
        """The other side has its descriptor; the mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
