# SPDX-License-Identifier: Apache-2.0
"""`.skb`: the OCI image layout of one bundle as a tar file of which every byte is determined.

Order: `oci-layout`, `index.json`, the manifest, `skerry.json`, ModelPack's config, then the other blobs by digest. So a
reader that goes through once knows what to expect of an entry before it meets it, and an archive has one form only: whatever
differs from what `write_archive` writes is refused. No compression, so nothing can unfold.

Reading writes nothing: it checks everything and returns where each blob lies in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from msgspec import Struct

from skerry.bundle import canonical, oci, ustar
from skerry.bundle.blob import Blob, FileBlob, MemoryBlob, StreamBlob, read_span
from skerry.bundle.digest import digest_of, hex_of, is_digest
from skerry.bundle.formats import require_inert
from skerry.bundle.manifest import BundleConfig
from skerry.bundle.modelpack import check_model_config
from skerry.bundle.oci import Bundle, Descriptor, Manifest
from skerry.errors import (
    ArchiveBomb,
    ArchiveRefused,
    DigestMismatch,
    DuplicateEntry,
    InputMissing,
    ManifestError,
    MissingEntry,
    SizeLie,
    StorageError,
    TruncatedArchive,
    UndeclaredEntry,
)

SUFFIX: Final = ".skb"
LAYOUT_PATH: Final = "oci-layout"
INDEX_PATH: Final = "index.json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_BLOBS: Final = "blobs/sha256/"
_LAYOUT: Final = canonical.encode({"imageLayoutVersion": "1.0.0"})
_REFERENCE: Final = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may ask of its reader, in bytes and entries. The defaults are those of the format."""

    total: int = 64 * 1024**3
    entry: int = ustar.MAX_SIZE
    entries: int = oci.MAX_FILES + 8
    document: int = canonical.MAX_DOCUMENT


class _Index(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    schema_version: Literal[2]
    media_type: Literal["application/vnd.oci.image.index.v1+json"]
    manifests: tuple[Descriptor, ...]


def blob_path(digest: str) -> str:
    return _BLOBS + hex_of(digest)


# --- writing -------------------------------------------------------------------------------------------------------------


def layout_files(bundle: Bundle) -> Iterator[tuple[str, Blob]]:
    """The OCI image layout, in the order of the archive."""
    yield LAYOUT_PATH, MemoryBlob(_LAYOUT)
    yield INDEX_PATH, MemoryBlob(_index(bundle))
    yield blob_path(bundle.digest), MemoryBlob(bundle.manifest.data)
    for descriptor in bundle.manifest.blobs:
        yield blob_path(descriptor.digest), bundle.blobs[descriptor.digest]


def write_archive(bundle: Bundle, file: BinaryIO) -> None:
    """Raises DigestMismatch when a source changed since the bundle was built; `file` is then of no use."""
    for name, blob in layout_files(bundle):
        file.write(ustar.header(name, blob.size))
        state = hashlib.sha256()
        for chunk in blob.chunks():
            state.update(chunk)
            file.write(chunk)
        if name.startswith(_BLOBS) and state.hexdigest() != name.removeprefix(_BLOBS):
            raise DigestMismatch(name=name, actual=state.hexdigest(), expected=name.removeprefix(_BLOBS))
        file.write(bytes(ustar.padding(blob.size)))
    file.write(ustar.END)


def _index(bundle: Bundle) -> bytes:
    descriptor = Descriptor(
        media_type=oci.MANIFEST_TYPE,
        digest=bundle.digest,
        size=len(bundle.manifest.data),
        annotations={_REFERENCE: f"{bundle.config.name}:{bundle.config.version}"},
    )
    return canonical.encode(_Index(schema_version=2, media_type=INDEX_TYPE, manifests=(descriptor,)))


# --- reading -------------------------------------------------------------------------------------------------------------


def open_archive(path: Path, limits: Limits | None = None) -> Bundle:
    """Check the whole archive at `path`; the blobs of the bundle are read from it again when they are used.

    Raises InputMissing, or the ArchiveRefused, ManifestError or DigestMismatch that says why not. Writes nothing.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, limits or Limits(), lambda offset, size: FileBlob(path, offset, size)).bundle()
    except FileNotFoundError as error:
        raise InputMissing(path=str(path)) from error
    except OSError as error:
        raise StorageError(path=str(path), problem=error.strerror or str(error)) from error


def read_config(path: Path) -> BundleConfig:
    """The config of the archive at `path`, all of which is checked first."""
    return open_archive(path).config


def read_archive(file: BinaryIO, limits: Limits | None = None) -> Bundle:
    """The same for an open, seekable stream, which must stay open as long as the bundle is used."""
    return _Reader(file, limits or Limits(), lambda offset, size: StreamBlob(file, offset, size)).bundle()


class _Reader:
    """One pass over an archive. Every method that takes an entry has checked it when it returns."""

    def __init__(self, file: BinaryIO, limits: Limits, blob: Callable[[int, int], Blob]) -> None:
        self._file = file
        self._limits = limits
        self._blob = blob
        self._offset = 0
        self._total = 0
        self._seen: set[str] = set()
        self._known: frozenset[str] | None = None

    def bundle(self) -> Bundle:
        self._literal(LAYOUT_PATH, _LAYOUT)
        index_data = self._document(INDEX_PATH)
        found = _read_index(index_data)
        manifest = self._manifest(found)
        self._known = frozenset(
            {LAYOUT_PATH, INDEX_PATH, blob_path(manifest.digest)} | {blob_path(blob.digest) for blob in manifest.blobs}
        )
        self._within_limits(manifest)
        config_data = self._document(blob_path(manifest.config.digest), manifest.config)
        config = oci.open_config(manifest, config_data)
        model_config = self._document(blob_path(manifest.model_config.digest), manifest.model_config)
        check_model_config(model_config, [manifest.config.digest, *(layer.digest for layer in manifest.files)])
        blobs: dict[str, Blob] = {
            manifest.config.digest: MemoryBlob(config_data),
            manifest.model_config.digest: MemoryBlob(model_config),
        }
        for descriptor in manifest.blobs:
            if descriptor.digest not in blobs:
                blobs[descriptor.digest] = self._streamed(descriptor)
        self._end()
        bundle = Bundle(manifest=manifest, config=config, blobs=blobs)
        _require_inert_files(bundle)
        if index_data != _index(bundle):
            raise ManifestError(problem=f"{INDEX_PATH} is not that of {config.name}:{config.version}")
        return bundle

    def _manifest(self, found: Descriptor) -> Manifest:
        return oci.parse_manifest(self._document(blob_path(found.digest), found))

    def _within_limits(self, manifest: Manifest) -> None:
        declared = sum(blob.size for blob in manifest.blobs)
        if self._total + declared > self._limits.total:
            raise ArchiveBomb(entry="the manifest", limit=f"{self._limits.total} bytes in all")
        if len(manifest.blobs) > self._limits.entries:
            raise ArchiveBomb(entry="the manifest", limit=f"{self._limits.entries} entries")

    def _literal(self, name: str, expected: bytes) -> None:
        if self._document(name) != expected:
            raise ManifestError(problem=f"{name} is not that of an OCI image layout 1.0.0")

    def _document(self, name: str, declared: Descriptor | None = None) -> bytes:
        size = self._header(name)
        if declared is not None and size != declared.size:
            raise SizeLie(entry=name, actual=size, declared=declared.size)
        if size > self._limits.document:
            raise ArchiveBomb(entry=name, limit=f"{self._limits.document} bytes for a document")
        data = b"".join(self._content(name, size))
        if declared is not None:
            _require_digest(name, digest_of(data), declared)
        self._skip_padding(name, size)
        return data

    def _streamed(self, descriptor: Descriptor) -> Blob:
        name = blob_path(descriptor.digest)
        size = self._header(name)
        if size != descriptor.size:
            raise SizeLie(entry=name, actual=size, declared=descriptor.size)
        blob = self._blob(self._offset, size)
        state = hashlib.sha256()
        for chunk in self._content(name, size):
            state.update(chunk)
        _require_digest(name, f"sha256:{state.hexdigest()}", descriptor)
        self._skip_padding(name, size)
        return blob

    def _header(self, expected: str) -> int:
        """Size of the next entry, which must be `expected`."""
        block = self._take(ustar.BLOCK, expected)
        if expected == LAYOUT_PATH and not ustar.is_header(block):
            raise ArchiveRefused(entry="the file", problem=f"it is no {SUFFIX} archive")
        if not block.strip(b"\0"):
            raise MissingEntry(entry=expected)
        entry = ustar.parse(block)
        self._require_next(entry.name, expected)
        if entry.size > self._limits.entry:
            raise ArchiveBomb(entry=entry.name, limit=f"{self._limits.entry} bytes")
        self._total += entry.size
        if self._total > self._limits.total:
            raise ArchiveBomb(entry=entry.name, limit=f"{self._limits.total} bytes in all")
        return entry.size

    def _require_next(self, name: str, expected: str) -> None:
        if name in self._seen:
            raise DuplicateEntry(entry=name)
        self._seen.add(name)
        if name == expected:
            return
        if self._known is not None and name not in self._known:
            raise UndeclaredEntry(entry=name)
        raise MissingEntry(entry=expected) if self._could_be_declared(name) else UndeclaredEntry(entry=name)

    def _could_be_declared(self, name: str) -> bool:
        return name in {LAYOUT_PATH, INDEX_PATH} or is_digest(f"sha256:{name.removeprefix(_BLOBS)}")

    def _content(self, name: str, size: int) -> Iterator[bytes]:
        left = size
        for chunk in read_span(self._file, self._offset, size):
            left -= len(chunk)
            self._offset += len(chunk)
            yield chunk
        if left:
            raise TruncatedArchive(entry=name)

    def _skip_padding(self, name: str, size: int) -> None:
        if self._take(ustar.padding(size), name).strip(b"\0"):
            raise ArchiveRefused(entry=name, problem="bytes hidden behind its end")

    def _take(self, size: int, name: str) -> bytes:
        self._file.seek(self._offset)
        data = self._file.read(size)
        if len(data) != size:
            raise TruncatedArchive(entry=name)
        self._offset += size
        return data

    def _end(self) -> None:
        block = self._take(ustar.BLOCK, "end of archive")
        if block.strip(b"\0"):
            name = ustar.parse(block).name
            raise DuplicateEntry(entry=name) if name in self._seen else UndeclaredEntry(entry=name)
        if self._take(ustar.BLOCK, "end of archive").strip(b"\0") or self._file.read(1):
            raise ArchiveRefused(entry="end of archive", problem="something follows it")


def _require_digest(name: str, actual: str, declared: Descriptor) -> None:
    if actual != declared.digest:
        raise DigestMismatch(name=name, actual=actual, expected=declared.digest)


def _read_index(data: bytes) -> Descriptor:
    index = canonical.decode(data, _Index, document=INDEX_PATH)
    if len(index.manifests) != 1:
        raise ManifestError(problem=f"{INDEX_PATH} names {len(index.manifests)} manifests, there must be one")
    found = index.manifests[0]
    if found.media_type != oci.MANIFEST_TYPE or not is_digest(found.digest):
        raise ManifestError(problem=f"{INDEX_PATH} does not name an image manifest")
    return found


def _require_inert_files(bundle: Bundle) -> None:
    for layer in bundle.manifest.files:
        require_inert(layer.path, bundle.blobs[layer.digest])
