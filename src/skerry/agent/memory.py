# SPDX-License-Identifier: Apache-2.0
"""The agent's own memory, kept small: the device's memory belongs to the models."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

_M_ARENA_MAX = -8  # mallopt(3)
_M_TRIM_THRESHOLD = -1
_TRIM_ABOVE = 128 * 1024
_THREAD_STACK = 512 * 1024

_libc = ctypes.CDLL(None)


def settle() -> None:
    """One malloc arena for all threads, trimmed early; small stacks. Call before threads are started."""
    mallopt = getattr(_libc, "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_ABOVE)
    threading.stack_size(_THREAD_STACK)
    gc.freeze()  # what imports made stays for good: no collection has to look at it again


def give_back() -> None:
    """Return free heap pages to the system."""
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)
