# SPDX-License-Identifier: Apache-2.0
"""Whether there is room to keep the version before loaded while the new one soaks. Pure.

What is kept warm yields to every workload that is admitted: `update.admission.give_way`.
"""

from __future__ import annotations

from typing import Final

from skerry.agent.update.admission import kept_for_system

KEPT_WARM: Final = "the version before is kept warm"
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
    needed = kept_for_system(total)
    if available is None or available >= needed:
        return ""
    return f"the version before is not kept warm: {available} MiB of memory are available, {needed} MiB have to be"
