# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys in files: encrypted PKCS#8 PEM for the private half, SubjectPublicKeyInfo PEM for the public one.

Every doubt is a KeyFileError: a key that cannot be read, is readable by others, or is not Ed25519 signs nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from skerry.effects import Files
from skerry.errors import FileExists, KeyFileError
from skerry.trust.metadata import raw_public

PRIVATE_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 65_536
_ENCRYPTED = b"ENCRYPTED PRIVATE KEY"


def generate() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def write_private(files: Files, path: Path, key: Ed25519PrivateKey, *, passphrase: str | None) -> None:
    """Mode 0600, and never over an existing file: a lost key is lost for good. `passphrase` None = unencrypted (demo)."""
    if files.read(path) is not None:
        raise FileExists(path=str(path))
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        if not passphrase:
            raise KeyFileError(path=str(path), problem="an empty passphrase protects nothing")
        protection = serialization.BestAvailableEncryption(passphrase.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    files.write(path, pem, mode=PRIVATE_MODE)


def write_public(files: Files, path: Path, public_key: bytes) -> None:
    """`public_key`: 32 raw bytes."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    files.write(path, pem)


def read_private(path: Path, *, passphrase: str | None, allow_plain: bool = True) -> Ed25519PrivateKey:
    """Raises KeyFileError: missing, unreadable, open to others, damaged, not Ed25519, wrong or no passphrase.

    With `allow_plain` False an unencrypted key is refused as well.
    """
    pem = _read_guarded(path)
    encrypted = _ENCRYPTED in pem
    if not encrypted and not allow_plain:
        raise KeyFileError(path=str(path), problem="it is not encrypted")
    if encrypted and not passphrase:
        raise KeyFileError(path=str(path), problem="it is encrypted and no passphrase was given")
    secret = passphrase.encode() if encrypted and passphrase else None
    try:
        key = serialization.load_pem_private_key(pem, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        problem = "wrong passphrase or damaged file" if encrypted else "not a private key"
        raise KeyFileError(path=str(path), problem=problem) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path=str(path), problem="not an Ed25519 key")
    return key


def read_public(path: Path) -> bytes:
    """32 raw bytes. Raises KeyFileError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes()[:_MAX_BYTES])
    except OSError as error:
        raise KeyFileError(path=str(path), problem=error.strerror or str(error)) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(path=str(path), problem="not a public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(path=str(path), problem="not an Ed25519 key")
    return key.public_bytes_raw()


def needs_passphrase(path: Path) -> bool:
    """Whether `read_private` would ask for one. Raises KeyFileError when the file cannot be used at all."""
    return _ENCRYPTED in _read_guarded(path)


def write_pair(files: Files, path: Path, *, passphrase: str | None) -> bytes:
    """Make a key, write `path` (.pem) and the public half beside it (.pub); the 32 raw public bytes."""
    key = generate()
    write_private(files, path, key, passphrase=passphrase)
    write_public(files, path.with_suffix(".pub"), raw_public(key))
    return raw_public(key)


def _read_guarded(path: Path) -> bytes:
    # Mode and content come from one descriptor: the file checked is the file read.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(path=str(path), problem=error.strerror or str(error)) from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise KeyFileError(path=str(path), problem="not a file")
        if facts.st_mode & _OTHERS:
            raise KeyFileError(path=str(path), problem="others can read it; chmod 600")
        return os.read(handle, _MAX_BYTES)
    finally:
        os.close(handle)
