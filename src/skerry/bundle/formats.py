# SPDX-License-Identifier: Apache-2.0
"""Formats that can run code, or hide what they hold, when somebody opens them: none of them may be in a bundle.

Judged by suffix and by content, since either can lie. The one archive allowed is `.npz`, whose members are looked at.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import PurePosixPath

from skerry.bundle import blob as blobs
from skerry.bundle.blob import Blob
from skerry.errors import ArchiveBomb, ExecutableFormat

HEAD = 4096
"""Bytes looked at."""

NPZ_LIMIT = 256 * 1024 * 1024
"""Largest `.npz`, packed and unpacked; bytes. Samples are read whole."""

_SUFFIXES = {
    "pickle": "pkl pickle joblib pt pth ckpt mar dill",
    "keras": "keras h5 hdf5",
    "saved graph with code": "pb savedmodel torchscript pt2 nemo",
    "native code": "so dll dylib exe o a ko node pyd",
    "script": "py pyc pyo pyz sh bash js mjs lua rb pl ps1 bat cmd jar class wasm",
    "archive": "zip tar tgz gz bz2 xz zst 7z rar whl deb rpm",
}
_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

_MAGIC = (
    (re.compile(rb"\x80[\x02-\x05][(-\x98}\]]"), "pickle"),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), "HDF5"),
    (re.compile(rb"\x7fELF"), "native code"),
    (re.compile(rb"(\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba\xbe)"), "native code"),
    (re.compile(rb"\x00asm\x01\x00\x00\x00"), "native code"),
    (re.compile(rb"#!\s*/"), "script"),
    (re.compile(rb"\x1f\x8b\x08|BZh[1-9]1AY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07"), "archive"),
    (re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"), "archive"),
)
_NPY_OBJECT = re.compile(rb"\x93NUMPY.{2,6}\{.*'descr'\s*:\s*[^}]*O", re.DOTALL)
_PE_OFFSET = slice(0x3C, 0x40)


def kind_by_name(path: str) -> str | None:
    """What could run, by any of the suffixes of `path`; None when there is nothing to object to."""
    suffixes = [suffix.lstrip(".").lower() for suffix in PurePosixPath(path).suffixes]
    numbered = [suffix for suffix in suffixes if not suffix.isdigit()]
    return _KIND_OF_SUFFIX.get(numbered[-1]) if numbered else None


def kind_by_content(start: bytes) -> str | None:
    """What could run, by the first HEAD bytes."""
    for pattern, kind in _MAGIC:
        if pattern.match(start):
            return kind
    if start[:2] == b"MZ" and start[int.from_bytes(start[_PE_OFFSET], "little") :][:4] == b"PE\x00\x00":
        return "native code"
    if _NPY_OBJECT.match(start):
        return "numpy objects"
    return None


def require_inert(path: str, blob: Blob) -> None:
    """Raises ExecutableFormat, or ArchiveBomb for samples that unfold beyond NPZ_LIMIT."""
    named = kind_by_name(path)
    if named is not None:
        raise ExecutableFormat(entry=path, kind=named)
    start = blobs.head(blob, HEAD)
    if path.lower().endswith(".npz"):
        _require_plain_arrays(path, blob)
        return
    found = kind_by_content(start)
    if found is not None:
        raise ExecutableFormat(entry=path, kind=found)


def _require_plain_arrays(path: str, blob: Blob) -> None:
    if blob.size > NPZ_LIMIT:
        raise ArchiveBomb(entry=path, limit=f"{NPZ_LIMIT} bytes of samples")
    try:
        with zipfile.ZipFile(io.BytesIO(blobs.content(blob))) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > NPZ_LIMIT:
                raise ArchiveBomb(entry=path, limit=f"{NPZ_LIMIT} bytes of samples unpacked")
            for member in members:
                _require_plain_array(path, archive, member)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ExecutableFormat(entry=path, kind=f"not an npz archive: {error}") from error


def _require_plain_array(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as file:
        start = file.read(HEAD)
    if not member.filename.endswith(".npy") or not start.startswith(b"\x93NUMPY"):
        raise ExecutableFormat(entry=f"{path}:{member.filename!a}", kind="not a numpy array")
    if _NPY_OBJECT.match(start):
        raise ExecutableFormat(entry=f"{path}:{member.filename!a}", kind="numpy objects")
