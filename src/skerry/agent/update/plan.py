# SPDX-License-Identifier: Apache-2.0
"""From a trusted manifest to what this device needs of it: one variant, its files, the self-test. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from skerry.agent.store import Marker, StoredFile
from skerry.agent.update.contract import Plan, StepRefused
from skerry.bundle.manifest import BundleConfig
from skerry.bundle.oci import Manifest
from skerry.bundle.rules import CONFIG_PATH
from skerry.bundle.select import Chosen, NoneFits, choose_variant
from skerry.wire.v1.device import Capabilities

NO_VARIANT_FITS = "no-variant-fits"


def make_plan(manifest: Manifest, config: BundleConfig, capabilities: Capabilities) -> Plan:
    """Raises StepRefused when no variant fits. The other variants' files are not wanted here, nor documents."""
    chosen = _choose(config, capabilities)
    if isinstance(chosen, NoneFits):
        raise StepRefused(NO_VARIANT_FITS, chosen.problem)
    wanted = {*chosen.variant.files, config.self_test.file}
    files = [StoredFile(path=CONFIG_PATH, digest=manifest.config.digest, size=manifest.config.size)]
    files += [
        StoredFile(path=layer.path, digest=layer.digest, size=layer.size)
        for layer in manifest.files
        if layer.path in wanted
    ]
    marker = Marker(digest=manifest.digest, variant=chosen.variant.name, files=tuple(files))
    alone = (_choose(replace(config, variants=(variant,)), capabilities) for variant in config.variants)
    others = tuple(each.variant for each in alone if isinstance(each, Chosen) and each.variant != chosen.variant)
    return Plan(variant=chosen.variant, marker=marker, floor_seq=config.floor_seq, others=others)


def _choose(config: BundleConfig, capabilities: Capabilities) -> Chosen | NoneFits:
    return choose_variant(
        config,
        arch=capabilities.arch,
        memory_mib=capabilities.memory_mib,
        runtimes=capabilities.runtimes,
        instructions=capabilities.instructions,
        accelerators=tuple(accelerator.kind for accelerator in capabilities.accelerators),
    )
