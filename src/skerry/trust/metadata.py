# SPDX-License-Identifier: Apache-2.0
"""TUF metadata as bytes in, bytes out: parse, sign, check. All keys we make are Ed25519; those we read may be others."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from skerry.errors import CatalogueRefused

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class CatalogueRefusal(StrEnum):
    """`reason` of every CatalogueRefused."""

    UNSIGNED = "unsigned"  # fewer valid signatures than the threshold
    ROLLBACK = "rollback"
    FREEZE = "freeze"  # expired: someone keeps newer metadata from us, or nobody made any
    MIX_AND_MATCH = "mix-and-match"  # files that were never published together
    ENDLESS_DATA = "endless-data"
    SLOW_RETRIEVAL = "slow-retrieval"
    WRONG_TARGET = "wrong-target"  # not the bytes, or not the bundle, that was signed
    ROLE_DROPPED = "role-dropped"  # a role vanished from the snapshot
    MALFORMED = "malformed"
    EXISTS = "exists"  # publishing: that version is there already
    ALTERED = "altered"  # publishing: something published before would change


def instant(seconds: float) -> datetime:
    """An expiry date as TUF wants it: UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)


def tuf_key(public_key: bytes) -> SSlibKey:
    """The key as it stands in metadata. `public_key`: 32 raw bytes."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public_key))


def raw_public(private_key: Ed25519PrivateKey) -> bytes:
    """32 raw bytes."""
    return private_key.public_key().public_bytes_raw()


def parse(kind: type[T], data: bytes) -> Metadata[T]:
    """Unverified content. Raises CatalogueRefused (malformed) when it is not metadata of that kind."""
    try:
        parsed: Metadata[T] = Metadata.from_bytes(data)
    except tuf_errors.RepositoryError as error:
        raise CatalogueRefused(
            reason=CatalogueRefusal.MALFORMED, detail=f"not {kind.type} metadata: {error}"
        ) from error
    if parsed.signed.type != kind.type:
        raise CatalogueRefused(
            reason=CatalogueRefusal.MALFORMED, detail=f"expected {kind.type}, got {parsed.signed.type}"
        )
    return parsed


def version_of(data: bytes) -> int:
    """Version of any metadata. Unverified."""
    try:
        return Metadata.from_bytes(data).signed.version
    except tuf_errors.RepositoryError as error:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=str(error)) from error


def expires_of(data: bytes) -> float:
    """Expiry of any metadata in seconds since the epoch. Unverified."""
    try:
        return Metadata.from_bytes(data).signed.expires.timestamp()
    except tuf_errors.RepositoryError as error:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=str(error)) from error


def add_signature(data: bytes, private_key: Ed25519PrivateKey) -> bytes:
    """The same metadata with one more signature; who may sign it is the reader's business."""
    try:
        parsed = Metadata.from_bytes(data)
    except tuf_errors.RepositoryError as error:
        raise CatalogueRefused(reason=CatalogueRefusal.MALFORMED, detail=str(error)) from error
    parsed.sign(CryptoSigner(private_key), append=True)
    return parsed.to_bytes()


def require_signed(delegator: Metadata[Root] | Metadata[Targets], role: str, data: bytes) -> None:
    """Raises CatalogueRefused (unsigned) unless the threshold the delegator asks for `role` is met."""
    parsed = Metadata.from_bytes(data)
    try:
        delegator.signed.verify_delegate(role, parsed.signed_bytes, parsed.signatures)
    except (tuf_errors.UnsignedMetadataError, ValueError) as error:
        raise CatalogueRefused(reason=CatalogueRefusal.UNSIGNED, detail=str(error)) from error
