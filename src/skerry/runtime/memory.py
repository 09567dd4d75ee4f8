# SPDX-License-Identifier: Apache-2.0
"""Memory of this process: how it is bounded, given back and measured. Linux and glibc."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import threading
from functools import cache
from typing import Final

_MIB: Final = 1024 * 1024
_M_TRIM_THRESHOLD: Final = -1  # mallopt(3)
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT: Final = 32 * _MIB
_GC_THRESHOLDS: Final = (10_000, 20, 20)
_THREAD_STACK: Final = 512 * 1024
_libc = ctypes.CDLL(None)


def settle() -> None:
    """One malloc arena and small stacks. Call before threads and big allocations.

    glibc would otherwise keep up to eight arenas per core, and 8 MiB of every thread's stack would count against the limit.
    What a run of the model allocates stays with the process between runs: had it to be asked for anew each time, the kernel
    would clear every page again, a third of the time of a MobileNet. `give_back` returns it when there is a quiet moment.
    """
    mallopt = getattr(_libc, "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
    threading.stack_size(_THREAD_STACK)


def limit(mebibytes: int) -> None:
    """Bound the private writable memory of this process (RLIMIT_DATA); 0 = none.

    Not RLIMIT_AS: the address space of an engine is several times what it uses (mapped libraries, reserved arenas), so that
    limit fails models that fit. Allocations above the limit fail, which the engine reports as an error of that request.
    """
    if mebibytes > 0:
        resource.setrlimit(resource.RLIMIT_DATA, (mebibytes * _MIB, mebibytes * _MIB))


def give_back() -> None:
    """Return free heap pages to the system: after loading, up to half of what a model took. Takes milliseconds."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def settle_objects() -> None:
    """What exists now stays: the cycle collector need not look at it again, nor often at what a request leaves.

    Call when loaded. Requests make no cycles; at the library's own pace a full collection would hold up one in some thousand.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


@cache
def _statm() -> int:
    """Opened once: a process out of file descriptors must still be able to tell its figures."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def resident_bytes() -> int:
    pages = os.pread(_statm(), 256, 0).split()[1]
    return int(pages) * resource.getpagesize()


def resident_mib() -> float:
    return resident_bytes() / _MIB
