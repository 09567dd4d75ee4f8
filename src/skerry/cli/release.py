# SPDX-License-Identifier: Apache-2.0
"""The next version of a product line's release role: made and signed where the release key is, never on the hub. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from tuf.api.metadata import Targets

from skerry.bundle.oci import Bundle
from skerry.errors import CatalogueRefused
from skerry.trust import metadata, publish
from skerry.trust.decision import CatalogueEntry
from skerry.trust.metadata import CatalogueRefusal
from skerry.wire.v1.device import target_path


@dataclass(frozen=True, kw_only=True)
class SignedRole:
    """To be published."""

    role: str
    metadata: bytes


@dataclass(frozen=True, kw_only=True)
class AlreadyPublished:
    """Nothing to do: the same bundle is in the catalogue."""

    role: str


def entry_of(bundle: Bundle) -> CatalogueEntry:
    config = bundle.config
    return CatalogueEntry(
        target=target_path(config.line, config.name, config.version),
        digest=bundle.digest,
        size=len(bundle.manifest.data),
        line=config.line,
        model=config.name,
        version=config.version,
        release_seq=config.release_seq,
        floor_seq=config.floor_seq,
    )


def sign_release(
    entry: CatalogueEntry, *, current: bytes, targets: bytes, keys: Sequence[Ed25519PrivateKey], now: float
) -> SignedRole | AlreadyPublished:
    """`current`: the line's role as the hub serves it; `targets`: the catalogue's top-level role.

    The hub is not believed: `current` must bear a signature of one of `keys`, or a hub with stolen online keys could have
    its own entries signed along. Raises CatalogueRefused for that, for keys the line does not know, and for a version or
    release_seq that is not new.
    """
    role = publish.line_role(entry.line)
    _require_own_signature(role, current, keys)
    if any((known.target, known.digest) == (entry.target, entry.digest) for known in publish.releases(current)):
        return AlreadyPublished(role=role)
    signed = publish.add_release(current, entry, keys=keys, expires=now + publish.LINE_LIFETIME)
    metadata.require_signed(metadata.parse(Targets, targets), role, signed)
    return SignedRole(role=role, metadata=signed)


def sign_renewal(
    line: str, *, current: bytes, targets: bytes, keys: Sequence[Ed25519PrivateKey], now: float
) -> SignedRole:
    """The line's role with nothing new but a later expiry date. Doubts and raises like `sign_release`."""
    role = publish.line_role(line)
    _require_own_signature(role, current, keys)
    signed = publish.renew(current, keys=keys, expires=now + publish.LINE_LIFETIME)
    metadata.require_signed(metadata.parse(Targets, targets), role, signed)
    return SignedRole(role=role, metadata=signed)


def _require_own_signature(role: str, data: bytes, keys: Sequence[Ed25519PrivateKey]) -> None:
    parsed = metadata.parse(Targets, data)
    for key in keys:
        public = metadata.tuf_key(metadata.raw_public(key))
        signature = parsed.signatures.get(public.keyid)
        if signature is None:
            continue
        try:
            public.verify_signature(signature, parsed.signed_bytes)
        except (UnverifiedSignatureError, VerificationError):
            continue
        return
    detail = f"the hub's {role} bears no signature of the key given; is it the release key of this line?"
    raise CatalogueRefused(reason=CatalogueRefusal.UNSIGNED, detail=detail)
