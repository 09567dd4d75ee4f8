# SPDX-License-Identifier: Apache-2.0
"""From a trusted manifest to what this device needs of it: one variant, its files, the self-test. Pure."""

from __future__ import annotations

from skerry.agent.store import Marker, StoredFile
from skerry.agent.update.contract import Plan, StepRefused
from skerry.bundle.manifest import BundleConfig
from skerry.bundle.oci import Manifest
from skerry.bundle.rules import CONFIG_PATH
from skerry.bundle.select import NoneFits, choose_variant
from skerry.wire.v1.device import Capabilities

NO_VARIANT_FITS = "no-variant-fits"


def make_plan(manifest: Manifest, config: BundleConfig, capabilities: Capabilities) -> Plan:
    """Raises StepRefused when no variant fits. The other variants' files are not wanted here, nor documents."""
    chosen = choose_variant(
        config,
        arch=capabilities.arch,
        memory_mib=capabilities.memory_mib,
        runtimes=capabilities.runtimes,
        instructions=capabilities.instructions,
        accelerators=tuple(accelerator.kind for accelerator in capabilities.accelerators),
    )
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
    return Plan(variant=chosen.variant, marker=marker, floor_seq=config.floor_seq)
