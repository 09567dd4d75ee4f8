# SPDX-License-Identifier: Apache-2.0
"""Whether there is room to keep the version before loaded while the new one soaks. Pure."""

from __future__ import annotations

from typing import Final

KEPT_WARM: Final = "the version before is kept warm"
_SPARE_MIB: Final = 64
_SPARE_SHARE: Final = 0.05  # of all memory: what the kernel and the agent need to stay at ease
_KIB: Final = 1024


def no_room(meminfo: str) -> str:
    """Why not, in words; empty when there is. `meminfo` is /proc/meminfo, in which both versions are loaded already.

    Where the kernel does not say what is available, nothing speaks against it.
    """
    values = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdecimal():
            values[name] = int(number[0]) // _KIB
    available, total = values.get("MemAvailable"), values.get("MemTotal", 0)
    needed = max(_SPARE_MIB, int(total * _SPARE_SHARE))
    if available is None or available >= needed:
        return ""
    return f"the version before is not kept warm: {available} MiB of memory are available, {needed} MiB have to be"
