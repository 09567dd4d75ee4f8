# SPDX-License-Identifier: Apache-2.0
"""From a catalogue entry to a bundle the hub holds whole; and which blobs devices may therefore fetch."""

from __future__ import annotations

from collections.abc import Iterable

from skerry.bundle.oci import Manifest, open_config, parse_manifest
from skerry.errors import BadRequest, ManifestError
from skerry.hub.blobs import Blobs
from skerry.hub.domain.catalogue import BundleRecord, CatalogueFile
from skerry.hub.store.interface import CatalogueStore
from skerry.trust.decision import CatalogueEntry
from skerry.trust.publish import target_file_name
from skerry.wire.v1.device import BundleRef

MAX_MANIFEST = 4 * 1024 * 1024
MAX_CONFIG = 4 * 1024 * 1024


def target_file(target: str, digest: str, data: bytes) -> CatalogueFile:
    """A target as the catalogue serves it. Its name holds its hash, so there is only ever one version."""
    return CatalogueFile(name=f"targets/{target_file_name(target, digest)}", version=1, data=data)


async def manifest_of(blobs: Blobs, entry: CatalogueEntry) -> Manifest:
    """The uploaded OCI manifest an entry names. Raises BadRequest when it is not there, ManifestError for a wrong one."""
    size = await blobs.size(entry.digest)
    if size is None:
        raise BadRequest(problem=f"the manifest of {entry.model}:{entry.version} ({entry.digest}) was not uploaded")
    if size != entry.size:
        raise ManifestError(problem=f"{entry.digest} has {size} bytes, the catalogue says {entry.size}")
    return parse_manifest(await blobs.content(entry.digest, limit=MAX_MANIFEST))


async def bundle_of(blobs: Blobs, entry: CatalogueEntry, manifest: Manifest, *, published: float) -> BundleRecord:
    """The record of a bundle of which every blob was uploaded.

    Raises BadRequest naming the first blob that is missing, ManifestError when a size is a lie or the bundle calls itself
    something else than the catalogue does.
    """
    total = len(manifest.data)
    for blob in manifest.blobs:
        size = await blobs.size(blob.digest)
        if size is None:
            raise BadRequest(problem=f"blob {blob.digest} of {entry.model}:{entry.version} was not uploaded")
        if size != blob.size:
            raise ManifestError(problem=f"{blob.digest} has {size} bytes, the manifest says {blob.size}")
        total += size
    data = await blobs.content(manifest.config.digest, limit=MAX_CONFIG)
    config = open_config(manifest, data)
    says = (config.line, config.name, config.version, config.release_seq, config.floor_seq)
    signed = (entry.line, entry.model, entry.version, entry.release_seq, entry.floor_seq)
    if says != signed:
        raise ManifestError(problem=f"the bundle says it is {says}, the catalogue says {signed}")
    ref = BundleRef(
        line=entry.line,
        model=entry.model,
        version=entry.version,
        digest=entry.digest,
        release_seq=entry.release_seq,
        target=entry.target,
    )
    return BundleRecord(ref=ref, published=published, size=total, config=data)


class ReleasedBlobs:
    """Devices may fetch the blobs of published bundles and nothing else an operator may have uploaded.

    Bundles never change and never go, so what is known is kept; a digest not yet known is looked for among bundles
    published since (by any replica).
    """

    def __init__(self, store: CatalogueStore) -> None:
        self._store = store
        self._bundles: set[str] = set()
        self._blobs: set[str] = set()

    async def holds(self, digest: str) -> bool:
        if digest not in self._blobs:
            await self._learn(await self._store.bundles())
        return digest in self._blobs

    async def _learn(self, records: Iterable[BundleRecord]) -> None:
        for ref in [record.ref for record in records if record.ref.digest not in self._bundles]:
            file = await self._store.catalogue_file(target_file(ref.target, ref.digest, b"").name)
            if file is None:
                continue
            manifest = parse_manifest(file.data)
            self._blobs.add(ref.digest)
            self._blobs.update(blob.digest for blob in manifest.blobs)
            self._bundles.add(ref.digest)
