# SPDX-License-Identifier: Apache-2.0
"""A bundle as a folder: `skerry.json` and the files at their paths. Whole or not there, after any crash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from skerry.bundle import canonical, oci
from skerry.bundle.blob import FileBlob
from skerry.bundle.digest import digest_of_chunks
from skerry.bundle.formats import require_inert
from skerry.bundle.manifest import BundleConfig
from skerry.bundle.oci import Bundle, Descriptor, Manifest
from skerry.bundle.rules import CONFIG_PATH
from skerry.effects.disk import fsync_folder
from skerry.errors import (
    DigestMismatch,
    FileExists,
    ManifestError,
    MissingEntry,
    SizeLie,
    StorageError,
    UndeclaredEntry,
)

ReadBlob = Callable[[Descriptor], Iterable[bytes]]


def materialise(manifest: Manifest, read_blob: ReadBlob, folder: Path) -> None:
    """Lay the files of `manifest` out as `folder`, which must not exist yet; they are hashed as they are written.

    Works in `.<folder>.partial` beside it, which a crash may leave behind and the next call clears away, and renames that at
    the very end. Two calls for the same folder at once are the caller's to prevent.
    Raises FileExists, StorageError, or what is wrong with the content (DigestMismatch, SizeLie, ExecutableFormat); `folder`
    then does not exist.
    """
    if folder.exists():
        raise FileExists(path=str(folder))
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        _clear(partial)
        partial.mkdir(parents=True)
        for layer in (manifest.config, *manifest.files):
            _write_file(partial / layer.path, layer, read_blob)
        _sync_folders(partial)
        partial.rename(folder)
        fsync_folder(folder.parent)
    except OSError as error:
        raise StorageError(path=str(folder), problem=error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            _clear(partial)


def unpack(bundle: Bundle, folder: Path) -> None:
    """`materialise` for a bundle in hand, say from `open_archive`."""
    materialise(bundle.manifest, lambda layer: bundle.blobs[layer.digest].chunks(), folder)


def read_config(folder: Path) -> BundleConfig:
    """The config of an unpacked bundle. Raises ManifestError, MissingEntry. Files are not looked at: see `check_folder`."""
    try:
        data = (folder / CONFIG_PATH).read_bytes()
    except FileNotFoundError as error:
        raise MissingEntry(entry=CONFIG_PATH) from error
    except OSError as error:
        raise StorageError(path=str(folder / CONFIG_PATH), problem=error.strerror or str(error)) from error
    return oci.parse_config(data)


def check_folder(manifest: Manifest, folder: Path) -> None:
    """Hash everything in `folder` against `manifest`. Raises MissingEntry, UndeclaredEntry, SizeLie or DigestMismatch."""
    layers = {layer.path: layer for layer in (manifest.config, *manifest.files)}
    present = {entry.relative_to(folder).as_posix() for entry in folder.rglob("*") if not _is_plain_folder(entry)}
    for path in sorted(present - layers.keys()):
        raise UndeclaredEntry(entry=path)
    for path, layer in layers.items():
        if path not in present:
            raise MissingEntry(entry=path)
        _check_file(folder / path, layer)


def _is_plain_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()


def _check_file(file: Path, layer: Descriptor) -> None:
    if file.is_symlink() or not file.is_file():
        raise UndeclaredEntry(entry=layer.path)
    size = file.stat().st_size
    if size != layer.size:
        raise SizeLie(entry=layer.path, actual=size, declared=layer.size)
    digest, _ = digest_of_chunks(FileBlob(file, 0, size).chunks())
    if digest != layer.digest:
        raise DigestMismatch(name=layer.path, actual=digest, expected=layer.digest)


def _write_file(target: Path, layer: Descriptor, read_blob: ReadBlob) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        written, digest = _copy(read_blob(layer), file, layer)
        file.flush()
        os.fsync(file.fileno())
    if written != layer.size:
        raise SizeLie(entry=layer.path, actual=written, declared=layer.size)
    if digest != layer.digest:
        raise DigestMismatch(name=layer.path, actual=digest, expected=layer.digest)
    if layer.path == CONFIG_PATH:
        _require_small(layer)
    else:
        require_inert(layer.path, FileBlob(target, 0, written))


def _require_small(layer: Descriptor) -> None:
    if layer.size > canonical.MAX_DOCUMENT:
        raise ManifestError(problem=f"{CONFIG_PATH} has {layer.size} bytes")


def _copy(chunks: Iterable[bytes], file: BinaryIO, layer: Descriptor) -> tuple[int, str]:
    """Stops at the declared size: a source that never ends must not fill the disk."""
    state = hashlib.sha256()
    written = 0
    for chunk in chunks:
        written += len(chunk)
        if written > layer.size:
            raise SizeLie(entry=layer.path, actual=f"more than {layer.size}", declared=layer.size)
        state.update(chunk)
        file.write(chunk)
    return written, f"sha256:{state.hexdigest()}"


def _sync_folders(top: Path) -> None:
    for folder in (top, *(entry for entry in top.rglob("*") if entry.is_dir())):
        fsync_folder(folder)


def _clear(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
