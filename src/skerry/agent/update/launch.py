# SPDX-License-Identifier: Apache-2.0
"""From a bundle on disk to what a runner is told."""

from __future__ import annotations

from skerry.agent.state import Release
from skerry.agent.store import Store
from skerry.agent.update.contract import Launch
from skerry.bundle.rules import CONFIG_PATH
from skerry.wire.v1.device import BundleRef, Limits


def launch(
    workload: str,
    bundle: BundleRef,
    store: Store,
    *,
    variant: str,
    rollout: str,
    memory_limit_mib: int,
    limits: Limits,
) -> Launch:
    marker = store.marker(bundle.digest)
    return Launch(
        workload=workload,
        digest=bundle.digest,
        bundle_dir=str(store.folder(bundle.digest)),
        variant=variant or (marker.variant if marker else ""),
        bundle=bundle.name,
        rollout=rollout,
        memory_limit_mib=memory_limit_mib,
        limits=limits,
        config_digest=marker.digest_of(CONFIG_PATH) if marker else "",
    )


def launch_of(workload: str, release: Release, store: Store, memory_limit_mib: int) -> Launch:
    """For a version that was committed here."""
    return launch(
        workload,
        release.ref,
        store,
        variant=release.variant,
        rollout=release.rollout,
        memory_limit_mib=memory_limit_mib,
        limits=release.limits,
    )
