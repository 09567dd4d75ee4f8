# SPDX-License-Identifier: Apache-2.0
"""Who this device is: an Ed25519 key made here, that never leaves, and the proofs made with it.

A client assertion is a JWT (RFC 7519) signed as a compact JWS (RFC 7515) with EdDSA (RFC 8037), for private_key_jwt
(RFC 7523 section 2.2).
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.effects import Entropy, Files
from skerry.errors import StateDamaged

KEY_MODE = 0o600
ASSERTION_SECONDS = 120


class Identity:
    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self.private_key = private_key

    @property
    def public_key(self) -> bytes:
        """32 raw bytes."""
        return self.private_key.public_key().public_bytes_raw()

    def client_assertion(self, *, device_id: str, audience: str, now: float, entropy: Entropy) -> str:
        """A JWT that proves this device to `audience` from `now` on for ASSERTION_SECONDS, once."""
        claims = {
            "iss": device_id,
            "sub": device_id,
            "aud": audience,
            "iat": int(now),
            "exp": int(now) + ASSERTION_SECONDS,
            "jti": _base64url(entropy.token(16)),
        }
        header = {"alg": "EdDSA", "typ": "JWT"}
        signed = f"{_base64url(msgspec.json.encode(header))}.{_base64url(msgspec.json.encode(claims))}"
        return f"{signed}.{_base64url(self.private_key.sign(signed.encode('ascii')))}"


def load_identity(files: Files, path: Path) -> Identity | None:
    """None when no key was made yet. Raises StateDamaged for a key that cannot be used."""
    data = files.read(path)
    if data is None:
        return None
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateDamaged(path=str(path), problem="not a private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateDamaged(path=str(path), problem="not an Ed25519 key")
    return Identity(key)


def ensure_identity(files: Files, path: Path) -> Identity:
    """The key of this device, made and stored when there is none. An existing key is never replaced."""
    existing = load_identity(files, path)
    if existing is not None:
        return existing
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.write(path, pem, mode=KEY_MODE)
    return Identity(key)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
