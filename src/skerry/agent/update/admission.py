# SPDX-License-Identifier: Apache-2.0
"""Does one more runner fit on this device? Pure: from what it needs and what the others were measured to take.

It is asked before anything is fetched. While a new version is tried both it and the one before are loaded, so the workload's
own runner counts among the others. A version that is only kept warm never stands in the way: it does not count, and ends when
its memory is needed (`give_way`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from skerry.bundle.manifest import Variant
from skerry.wire.v1.device import Limits

DOES_NOT_FIT: Final = "does-not-fit"

SYSTEM_MIB: Final = 64
SYSTEM_SHARE: Final = 0.05
"""What the kernel, the agent and the rest of the machine keep: the larger of the two, the second of all memory."""

RUNNER_MIB: Final = 60
"""Of a runner without its model, measured with onnxruntime on x86-64 (docs/reference/serving.md)."""

_MODEL_TIMES: Final = 1.6  # of its files' size, once loaded; a 47 MB convolutional network measured 1.5
_MIB: Final = 1024 * 1024


def kept_for_system(memory_mib: int) -> int:
    """MiB, of so much in all."""
    return max(SYSTEM_MIB, int(memory_mib * SYSTEM_SHARE))


@dataclass(frozen=True, kw_only=True)
class Device:
    """`taken`: workload -> MiB its runners were last measured to hold, without what is kept warm. `memory_mib` 0 = unknown:
    everything fits.
    """

    memory_mib: int
    cpus: int
    taken: Mapping[str, float]

    @property
    def kept_mib(self) -> int:
        return kept_for_system(self.memory_mib)

    @property
    def free_mib(self) -> int:
        return self.memory_mib - self.kept_mib - math.ceil(sum(self.taken.values()))


@dataclass(frozen=True, kw_only=True)
class Fits:
    needed_mib: int
    free_mib: int


@dataclass(frozen=True, kw_only=True)
class DoesNotFit:
    """`remedies`: what would make it fit, in words; empty when nothing that is known would."""

    problem: str
    remedies: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        return f"{self.problem}; {'; or '.join(self.remedies) or 'nothing to remove would be enough'}"


def needed_mib(variant: Variant, limits: Limits) -> int:
    """Its limit, else what its bundle says, else an estimate from the size of its files."""
    estimate = RUNNER_MIB + math.ceil(variant.size / _MIB * _MODEL_TIMES)
    return limits.memory_mib or variant.needs.memory_mib or estimate


def admit(
    workload: str, variant: Variant, limits: Limits, device: Device, *, others: tuple[Variant, ...] = ()
) -> Fits | DoesNotFit:
    """`others`: further variants of the bundle that this device can run."""
    needed, free = needed_mib(variant, limits), device.free_mib
    if limits.cpu_share > device.cpus:
        problem = f"it is to have a CPU share of {limits.cpu_share:g}, and there are {device.cpus} processors"
        return DoesNotFit(problem=problem, remedies=(f"ask for {device.cpus} or less",))
    if not device.memory_mib or needed <= free:
        return Fits(needed_mib=needed, free_mib=free)
    holders = ", ".join(f"{name} {math.ceil(mib)}" for name, mib in sorted(device.taken.items())) or "nobody else"
    problem = (
        f"{variant.name} needs {needed} MiB of memory and {max(0, free)} are free"
        f" (of {device.memory_mib}: the system keeps {device.kept_mib}, {holders})"
    )
    return DoesNotFit(problem=problem, remedies=_remedies(workload, needed - free, limits, device, others))


def give_way(needed: int, device: Device, warm: Mapping[str, float]) -> tuple[str, ...]:
    """Whose version before ends, so that `needed` MiB are free beside what stays warm. `warm`: workload -> MiB.

    The smallest one that is enough; where none is, the largest, and so on.
    """
    short = needed - device.free_mib + sum(warm.values())
    if not device.memory_mib or short <= 0:
        return ()
    enough = sorted((mib, name) for name, mib in warm.items() if mib >= short)
    if enough:
        return (enough[0][1],)
    going = []
    for mib, name in sorted(((mib, name) for name, mib in warm.items()), reverse=True):
        if short <= 0:
            break
        going.append(name)
        short -= mib
    return tuple(going)


def _remedies(
    workload: str, short: int, limits: Limits, device: Device, others: tuple[Variant, ...]
) -> tuple[str, ...]:
    """Smallest intervention first: another variant, then the smallest runner whose end would be enough."""
    found = []
    for variant in sorted(others, key=lambda each: needed_mib(each, limits)):
        if needed_mib(variant, limits) <= device.free_mib:
            found.append(f"its variant {variant.name} would fit, with {needed_mib(variant, limits)} MiB")
            break
    enough = sorted((mib, name) for name, mib in device.taken.items() if mib >= short)
    if enough:
        mib, name = enough[0]
        what = "its own version before, which a removal and a new assignment ends" if name == workload else name
        found.append(f"without {what} ({math.ceil(mib)} MiB) it would fit")
    return tuple(found)
