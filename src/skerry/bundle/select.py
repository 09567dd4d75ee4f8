# SPDX-License-Identifier: Apache-2.0
"""Which variant of a bundle a device runs: the most preferred of those whose needs it meets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from skerry.bundle.manifest import BundleConfig, Variant


@dataclass(frozen=True, kw_only=True)
class Chosen:
    variant: Variant
    passed_over: dict[str, str]  # more preferred variants that do not fit, and why


@dataclass(frozen=True, kw_only=True)
class NoneFits:
    reasons: dict[str, str]  # every variant, and why not

    @property
    def problem(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())


def choose_variant(
    config: BundleConfig,
    *,
    arch: str,
    memory_mib: int,
    runtimes: Collection[str],
    instructions: Collection[str] = (),
    accelerators: Collection[str] = (),
) -> Chosen | NoneFits:
    """`runtimes` are engine names, `accelerators` kinds of accelerator, `memory_mib` that of the device.

    Equal preference: the one listed first in the bundle.
    """
    device = _Device(
        arch=arch,
        memory_mib=memory_mib,
        runtimes=frozenset(runtimes),
        instructions=frozenset(instructions),
        accelerators=frozenset(accelerators),
    )
    reasons: dict[str, str] = {}
    for variant in sorted(config.variants, key=lambda variant: -variant.preference):
        missing = device.missing(variant)
        if not missing:
            return Chosen(variant=variant, passed_over=reasons)
        reasons[variant.name] = missing
    return NoneFits(reasons=reasons)


@dataclass(frozen=True, kw_only=True)
class _Device:
    arch: str
    memory_mib: int
    runtimes: frozenset[str]
    instructions: frozenset[str]
    accelerators: frozenset[str]

    def missing(self, variant: Variant) -> str:
        """What the device lacks for `variant`, in words; empty when it lacks nothing."""
        needs = variant.needs
        lacking = [word for word in needs.instructions if word not in self.instructions]
        checks = (
            (variant.runtime in self.runtimes, f"no {variant.runtime} engine"),
            (not needs.arch or self.arch in needs.arch, f"runs on {' or '.join(needs.arch)}, not {self.arch}"),
            (not needs.accelerator or needs.accelerator in self.accelerators, f"no {needs.accelerator} accelerator"),
            (self.memory_mib >= needs.memory_mib, f"needs {needs.memory_mib} MiB of memory, not {self.memory_mib}"),
            (not lacking, f"no {', '.join(lacking)} instructions"),
        )
        return ", ".join(reason for met, reason in checks if not met)
