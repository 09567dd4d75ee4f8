# SPDX-License-Identifier: Apache-2.0
"""A bundle as an OCI image: https://github.com/modelpack/model-spec/blob/main/docs/spec.md on top of OCI image-spec v1.1.

The image manifest is the bundle's identity: canonical JSON, one raw (uncompressed) layer per file.

The specification demands that the OCI config be ModelPack's own, with no keys of ours, so `skerry.json` (our authoritative
config) is the first layer, at the path `skerry.json`; the OCI config is derived from it and decides nothing on a device.
Any ModelPack tool that pulls the image thereby lays out exactly the folder an agent unpacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import Struct

from skerry.bundle import canonical, paths
from skerry.bundle.blob import Blob, MemoryBlob
from skerry.bundle.digest import digest_of, digest_of_chunks, is_digest
from skerry.bundle.formats import kind_by_name, require_inert
from skerry.bundle.manifest import BundleConfig, File, Kind
from skerry.bundle.modelpack import model_config_of
from skerry.bundle.rules import CONFIG_PATH, MAX_BLOB, validate_config
from skerry.errors import (
    ArchiveBomb,
    DigestMismatch,
    DuplicateEntry,
    ExecutableFormat,
    ManifestError,
    MissingEntry,
    SizeLie,
    UndeclaredEntry,
)

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"

FILEPATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"
VERSION: Final = "org.opencontainers.image.version"

_LAYER_TYPE: Final[dict[Kind, str]] = {
    "weight": "application/vnd.cncf.model.weight.v1.raw",
    "weight.config": "application/vnd.cncf.model.weight.config.v1.raw",
    "doc": "application/vnd.cncf.model.doc.v1.raw",
    "code": "application/vnd.cncf.model.code.v1.raw",
    "dataset": "application/vnd.cncf.model.dataset.v1.raw",
    # ModelPack has no words for these three, and its tools leave out layers of a type they do not know.
    "self-test": "application/vnd.cncf.model.dataset.v1.raw",
    "ml-bom": "application/vnd.cncf.model.doc.v1.raw",
    "evidence": "application/vnd.cncf.model.doc.v1.raw",
}
_LAYER_TYPES: Final = frozenset(_LAYER_TYPE.values())

MAX_FILES: Final = 1024


# --- the documents, as they are written ----------------------------------------------------------------------------------


class Descriptor(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """An OCI content descriptor."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}

    @property
    def path(self) -> str:
        """The file this layer is; empty for a descriptor that is not a layer."""
        return self.annotations.get(FILEPATH, "")


class _ImageManifest(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    schema_version: Literal[2]
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"]
    artifact_type: Literal["application/vnd.cncf.model.manifest.v1+json"]
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


# --- the documents, as they are used -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked image manifest. `data` are its exact bytes, `digest` theirs: the identity of the bundle."""

    data: bytes
    digest: str
    config: Descriptor  # skerry.json
    model_config: Descriptor  # ModelPack's config; a device has no use for it
    files: tuple[Descriptor, ...]  # every other layer, in the manifest's order; `.path` names the file

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything a registry or hub must hold beside the manifest, each digest once: configs first, then by digest."""
        rest = {layer.digest: layer for layer in self.files}
        first = {self.config.digest: self.config, self.model_config.digest: self.model_config}
        return (*first.values(), *(rest[digest] for digest in sorted(rest) if digest not in first))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A whole bundle: every blob of `manifest.blobs`, by digest."""

    manifest: Manifest
    config: BundleConfig
    blobs: Mapping[str, Blob]

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of all blobs, each once."""
        return sum(blob.size for blob in self.manifest.blobs)

    def file(self, path: str) -> Blob:
        """Raises MissingEntry when the bundle has no such file."""
        found = next((layer for layer in self.manifest.files if layer.path == path), None)
        if found is None:
            raise MissingEntry(entry=path)
        return self.blobs[found.digest]


# --- writing -------------------------------------------------------------------------------------------------------------


def build(config: BundleConfig, files: Mapping[str, Blob], kinds: Mapping[str, Kind] | None = None) -> Bundle:
    """The bundle of `config` with `files` by path; `config.files` and the variants' sizes are filled in here.

    Kinds are read off the config (its models are weights, ...) unless given. Same config and contents, same digest.
    Raises ManifestError, or the ArchiveRefused that reading it back would raise.
    """
    entries = measure(config, files, kinds)
    sizes = {entry.path: entry.size for entry in entries}
    variants = tuple(
        msgspec.structs.replace(variant, size=sum(sizes.get(path, 0) for path in set(variant.files)))
        for variant in config.variants
    )
    whole = msgspec.structs.replace(config, files=entries, variants=variants)
    validate_config(whole)
    data = canonical.encode(whole)
    model_config = model_config_of(whole, digest_of(data))
    manifest = parse_manifest(_render(whole, data, model_config))
    blobs: dict[str, Blob] = {entry.digest: files[entry.path] for entry in entries}
    blobs[manifest.config.digest] = MemoryBlob(data)
    blobs[manifest.model_config.digest] = MemoryBlob(model_config)
    return Bundle(manifest=manifest, config=whole, blobs=blobs)


def kind_of(config: BundleConfig, path: str) -> Kind:
    if path == config.self_test.file:
        return "self-test"
    if path == config.ml_bom:
        return "ml-bom"
    if any(path == variant.model for variant in config.variants):
        return "weight"
    if any(path in variant.files for variant in config.variants):
        return "weight.config"
    return "doc"


def measure(
    config: BundleConfig, files: Mapping[str, Blob], kinds: Mapping[str, Kind] | None = None
) -> tuple[File, ...]:
    """What `build` puts into `config.files`. Raises ExecutableFormat."""
    return tuple(
        _measured(path, files[path], (kinds or {}).get(path) or kind_of(config, path)) for path in sorted(files)
    )


def _measured(path: str, blob: Blob, kind: Kind) -> File:
    require_inert(path, blob)
    digest, size = digest_of_chunks(blob.chunks())
    return File(path=path, digest=digest, size=size, kind=kind)


def _render(config: BundleConfig, config_data: bytes, model_config: bytes) -> bytes:
    own = File(path=CONFIG_PATH, digest=digest_of(config_data), size=len(config_data), kind="weight.config")
    manifest = _ImageManifest(
        schema_version=2,
        media_type=MANIFEST_TYPE,
        artifact_type=ARTIFACT_TYPE,
        config=Descriptor(media_type=MODEL_CONFIG_TYPE, digest=digest_of(model_config), size=len(model_config)),
        layers=tuple(_layer(file) for file in (own, *config.files)),
        annotations={TITLE: config.name, VERSION: config.version},
    )
    return canonical.encode(manifest)


def _layer(file: File) -> Descriptor:
    return Descriptor(
        media_type=_LAYER_TYPE[file.kind],
        digest=file.digest,
        size=file.size,
        annotations={FILEPATH: file.path, TITLE: file.path},
    )


# --- reading -------------------------------------------------------------------------------------------------------------


def parse_manifest(data: bytes) -> Manifest:
    """Raises ManifestError on anything but the canonical manifest `build` would write; for a layer whose path or size could
    do harm, the ArchiveRefused that names it.
    """
    image = canonical.decode(data, _ImageManifest, document="image manifest")
    if canonical.encode(image) != data:
        raise ManifestError(problem="image manifest is not canonical JSON")
    if image.config.media_type != MODEL_CONFIG_TYPE:
        raise ManifestError(problem=f"the image's config has type {image.config.media_type}, not {MODEL_CONFIG_TYPE}")
    if len(image.layers) > MAX_FILES:
        raise ManifestError(problem=f"{len(image.layers)} layers, at most {MAX_FILES} are allowed")
    _require_sizes((image.config, *image.layers))
    own = [layer for layer in image.layers if layer.path == CONFIG_PATH]
    files = tuple(layer for layer in image.layers if layer.path != CONFIG_PATH)
    if len(own) != 1:
        raise ManifestError(problem=f"{len(own)} layers at {CONFIG_PATH}, there must be one")
    _require_layers(own[0], files)
    return Manifest(data=data, digest=digest_of(data), config=own[0], model_config=image.config, files=files)


def _require_sizes(descriptors: tuple[Descriptor, ...]) -> None:
    sizes: dict[str, int] = {}
    for descriptor in descriptors:
        if not is_digest(descriptor.digest):
            raise ManifestError(problem=f"{descriptor.digest!r} is not a digest")
        if not 0 <= descriptor.size <= MAX_BLOB:
            raise ArchiveBomb(entry=descriptor.digest, limit=f"{MAX_BLOB} bytes")
        if sizes.setdefault(descriptor.digest, descriptor.size) != descriptor.size:
            raise SizeLie(entry=descriptor.digest, actual=sizes[descriptor.digest], declared=descriptor.size)


def _require_layers(config: Descriptor, files: tuple[Descriptor, ...]) -> None:
    paths.require_paths(layer.path for layer in (config, *files))
    for layer in (config, *files):
        if layer.media_type not in _LAYER_TYPES:
            raise ManifestError(problem=f"layer {layer.path} has type {layer.media_type}; only raw layers are read")
        kind = kind_by_name(layer.path)
        if kind:
            raise ExecutableFormat(entry=layer.path, kind=kind)


def parse_config(data: bytes) -> BundleConfig:
    """`skerry.json`. Raises ManifestError; keys of later versions are ignored, as long as `schema` is the one we know."""
    config = canonical.decode(data, BundleConfig, document=CONFIG_PATH)
    validate_config(config)
    return config


def open_config(manifest: Manifest, data: bytes) -> BundleConfig:
    """`skerry.json` as this manifest means it: digest, content and the list of files are checked."""
    actual = digest_of(data)
    if actual != manifest.config.digest:
        raise DigestMismatch(name=CONFIG_PATH, actual=actual, expected=manifest.config.digest)
    config = parse_config(data)
    check_config_matches(manifest, config)
    return config


def check_config_matches(manifest: Manifest, config: BundleConfig) -> None:
    """Every layer is a file of the config and every file a layer, with equal digest, size and kind; else raises
    UndeclaredEntry, MissingEntry, DuplicateEntry, DigestMismatch, SizeLie or ManifestError.
    """
    declared = {file.path: file for file in config.files}
    if len(declared) != len(config.files):
        raise DuplicateEntry(entry=f"a file of {CONFIG_PATH}")
    layers = {layer.path: layer for layer in manifest.files}
    for path in layers:
        if path not in declared:
            raise UndeclaredEntry(entry=path)
    for path, file in declared.items():
        if path not in layers:
            raise MissingEntry(entry=path)
        _check_file(layers[path], file)


def _check_file(layer: Descriptor, file: File) -> None:
    if layer.digest != file.digest:
        raise DigestMismatch(name=file.path, actual=layer.digest, expected=file.digest)
    if layer.size != file.size:
        raise SizeLie(entry=file.path, actual=layer.size, declared=file.size)
    if layer.media_type != _LAYER_TYPE[file.kind]:
        raise ManifestError(problem=f"{file.path} is a {file.kind}, but its layer has type {layer.media_type}")
