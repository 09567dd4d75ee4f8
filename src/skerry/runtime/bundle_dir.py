# SPDX-License-Identifier: Apache-2.0
"""Reading an unpacked bundle for loading: every byte used is hashed in the buffer that is then used."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from skerry.bundle.manifest import BundleConfig, File, Variant
from skerry.errors import DigestMismatch, InputMissing, ManifestError

MANIFEST: Final = "skerry.json"
_MAX_MANIFEST: Final = 4 * 1024 * 1024


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissing(path=str(path)) from error
    except OSError as error:
        raise ManifestError(problem=f"{path}: {error.strerror or error}") from error


def _verify(name: str, data: bytes, expected: str) -> None:
    actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if actual != expected:
        raise DigestMismatch(name=name, actual=actual, expected=expected)


def read_config(folder: Path, digest: str = "") -> BundleConfig:
    """`digest` as somebody trusted has verified it; empty = unknown. Raises InputMissing, ManifestError, DigestMismatch."""
    data = _read(folder / MANIFEST)
    if digest:
        _verify(MANIFEST, data, digest)
    if len(data) > _MAX_MANIFEST:
        raise ManifestError(problem=f"more than {_MAX_MANIFEST} bytes")
    try:
        return msgspec.json.decode(data, type=BundleConfig)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ManifestError(problem=str(error)) from error


def find_variant(config: BundleConfig, name: str) -> Variant:
    for variant in config.variants:
        if variant.name == name:
            return variant
    raise ManifestError(problem=f"there is no variant {name}")


def _declared(config: BundleConfig, path: str) -> File:
    for file in config.files:
        if file.path == path:
            return file
    raise ManifestError(problem=f"{path} is not among its files")


def read_file(folder: Path, config: BundleConfig, path: str) -> bytes:
    """The content of a declared file, verified. Raises ManifestError, InputMissing, DigestMismatch."""
    file = _declared(config, path)
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ManifestError(problem=f"{path} points outside the bundle")
    data = _read(folder / parts)
    _verify(path, data, file.digest)
    return data
