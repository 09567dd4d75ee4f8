# SPDX-License-Identifier: Apache-2.0
"""Blobs and unpacked bundles on the device.

- A blob is visible under its digest only after every byte was read back from disk and hashed.
- An unpacked bundle exists when its marker `bundles/HEX.json` does: the marker is written last and removed first, so a
  half-unpacked folder is never taken for a bundle.
- Files of a bundle are second names of blobs: a bundle costs its size once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from skerry.agent.state import Layout, RecordFiles, decode
from skerry.bundle import oci
from skerry.bundle.digest import digest_of_chunks, hex_of, is_digest
from skerry.errors import ArtefactError, DeviceError, DigestMismatch

_log = logging.getLogger(__name__)


class StoredFile(Struct, frozen=True, kw_only=True):
    path: str
    digest: str
    size: int


class Marker(Struct, frozen=True, kw_only=True):
    """What was unpacked for which variant."""

    digest: str
    variant: str
    files: tuple[StoredFile, ...]

    def digest_of(self, path: str) -> str:
        """Empty when the bundle has no such file here."""
        return next((file.digest for file in self.files if file.path == path), "")


class StoredBlob:
    """A blob on this device, as `skerry.bundle` reads blobs."""

    def __init__(self, files: RecordFiles, path: Path, size: int) -> None:
        self._files = files
        self._path = path
        self.size = size

    def chunks(self) -> Iterator[bytes]:
        return self._files.pieces(self._path)


class Store:
    def __init__(self, files: RecordFiles, layout: Layout) -> None:
        self._files = files
        self._layout = layout

    # --- blobs ---

    def blob_path(self, digest: str) -> Path:
        return self._layout.blobs / "sha256" / hex_of(digest)

    def has(self, digest: str) -> bool:
        return self._files.size(self.blob_path(digest)) is not None

    def blob(self, digest: str) -> StoredBlob:
        path = self.blob_path(digest)
        return StoredBlob(self._files, path, self._files.size(path) or 0)

    def read(self, digest: str) -> bytes | None:
        """A small blob, hashed again as it is read. Raises DigestMismatch."""
        data = self._files.read(self.blob_path(digest))
        if data is not None:
            _expect(digest, digest_of_chunks([data])[0])
        return data

    def add(self, digest: str, data: bytes) -> None:
        """A small blob that is in memory. Raises DigestMismatch, StorageError."""
        _expect(digest, digest_of_chunks([data])[0])
        self._files.write(self.blob_path(digest), data)

    def received(self, digest: str) -> int:
        """Bytes of an unfinished download."""
        return self._files.size(self._partial(digest)) or 0

    def receive(self, digest: str, data: bytes) -> None:
        self._files.append(self._partial(digest), data)

    def restart(self, digest: str) -> None:
        """Forget an unfinished download."""
        self._files.remove(self._partial(digest))

    def finish(self, digest: str) -> None:
        """Turn a complete download into a blob. Raises DigestMismatch, with the download thrown away."""
        partial = self._partial(digest)
        actual, _ = digest_of_chunks(self._files.pieces(partial)) if self.received(digest) else digest_of_chunks([])
        if actual != digest:
            self.restart(digest)
        _expect(digest, actual)
        self._files.publish(partial, self.blob_path(digest))

    def drop_damaged(self, digest: str) -> None:
        """Remove a blob that no longer has its digest."""
        path = self.blob_path(digest)
        if self.has(digest) and digest_of_chunks(self._files.pieces(path))[0] != digest:
            self._files.remove(path)

    def free(self) -> int:
        """Bytes that still fit."""
        return self._files.free(self._layout.root)

    def _partial(self, digest: str) -> Path:
        return self._layout.partial / hex_of(digest)

    # --- bundles ---

    def folder(self, digest: str) -> Path:
        return self._layout.bundles / hex_of(digest)

    def marker(self, digest: str) -> Marker | None:
        """None also for one that cannot be read: a bundle without a marker is made again from its blobs."""
        path = self._marker_path(digest)
        try:
            data = self._files.read(path)
            marker = None if data is None else decode(path, data, Marker)
        except DeviceError as error:
            _log.warning("no marker error=%s", error)
            return None
        return marker if marker is not None and marker.digest == digest else None

    def unpacked(self, digest: str, variant: str) -> bool:
        marker = self.marker(digest)
        return marker is not None and marker.variant == variant

    def unpack(self, marker: Marker) -> None:
        """Make the folder of a bundle from blobs that are all here; what was there under this digest goes first."""
        self.drop(marker.digest)
        folder = self.folder(marker.digest)
        for file in marker.files:
            self._files.clone(self.blob_path(file.digest), folder / file.path)
        self._files.sync_tree(self._layout.root)
        self._files.write(self._marker_path(marker.digest), msgspec.json.encode(marker))

    def flaw(self, digest: str, variant: str) -> str:
        """What is wrong with an unpacked bundle, read and hashed in full; empty when nothing is."""
        marker = self.marker(digest)
        if marker is None or marker.variant != variant:
            return "it is not unpacked"
        for file in marker.files:
            path = self.folder(digest) / file.path
            if self._files.size(path) != file.size:
                return f"{file.path} is missing or has another size"
            if digest_of_chunks(self._files.pieces(path))[0] != file.digest:
                return f"{file.path} was altered"
        return ""

    def drop(self, digest: str) -> None:
        self._files.remove(self._marker_path(digest))
        self._files.remove_tree(self.folder(digest))
        self._files.remove_tree(self._layout.cache / hex_of(digest))  # what its runners derived from it

    def _sweep(self, name: str) -> None:
        """A marker with the bundle it stands for, or a write that a crash cut short. What else there is, is not ours."""
        stem = name.removesuffix(".json")
        if is_digest(f"sha256:{stem}"):
            self.drop(f"sha256:{stem}")
        elif name.startswith("."):
            self._files.remove(self._layout.bundles / name)

    def collect(self, keep: Collection[str]) -> int:
        """Remove bundles, blobs and unfinished downloads that belong to none of `keep` (bundle digests); how many."""
        wanted = {hex_of(digest) for digest in keep}
        try:
            needed = wanted.union(*(self._parts(digest) for digest in keep))
        except ArtefactError as error:  # a damaged manifest says of nothing that it can go
            _log.warning("nothing collected error=%s", error)
            return 0
        gone = 0
        for name in self._files.names(self._layout.bundles):
            if name.removesuffix(".json") not in wanted:
                self._sweep(name)
                gone += 1
        for folder in (self._layout.blobs / "sha256", self._layout.partial):
            for name in self._files.names(folder):
                if name not in needed:
                    self._files.remove(folder / name)
                    gone += 1
        return gone

    def _parts(self, digest: str) -> set[str]:
        """Blobs a bundle needs here: those of its variant, or all of its manifest while it is still being fetched."""
        marker = self.marker(digest)
        if marker is not None:
            return {hex_of(file.digest) for file in marker.files}
        data = self.read(digest)
        if data is None:
            return set()
        manifest = oci.parse_manifest(data)
        return {hex_of(layer.digest) for layer in (manifest.config, *manifest.files)}

    def _marker_path(self, digest: str) -> Path:
        return self._layout.bundles / f"{hex_of(digest)}.json"


def _expect(digest: str, actual: str) -> None:
    if actual != digest:
        raise DigestMismatch(name="blob", actual=actual, expected=digest)
