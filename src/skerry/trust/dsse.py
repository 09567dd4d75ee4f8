# SPDX-License-Identifier: Apache-2.0
"""DSSE v1 envelopes with Ed25519 keys (https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md).

Stricter than the specification, on purpose:
- a key is named by the SHA-256 of its 32 raw bytes and by nothing else, so one key cannot count under two names;
- a signature that claims a known key must be valid, even when another one already is;
- one algorithm: there is no field in which a forger could ask for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct, field

from skerry.errors import SignatureInvalid

MAX_ENVELOPE_BYTES = 4 * 1024 * 1024
KEY_BYTES = 32
SIGNATURE_BYTES = 64


class Signs(Protocol):
    """The private half of an Ed25519 key: in memory, in a file, or in a chip."""

    def sign(self, data: bytes, /) -> bytes: ...


class EnvelopeFault(StrEnum):
    """Why an envelope is not believed: `reason` of the SignatureInvalid raised by `verify`."""

    MALFORMED = "malformed"
    WRONG_TYPE = "wrong-type"
    UNSIGNED = "unsigned"
    NO_KEYS = "no-keys"
    BAD_KEY = "bad-key"
    UNKNOWN_KEY = "unknown-key"
    DUPLICATE_KEY = "duplicate-key"
    BAD_SIGNATURE = "bad-signature"


class Signature(Struct, frozen=True, kw_only=True):
    keyid: str
    sig: bytes


class Envelope(Struct, frozen=True, kw_only=True):
    payload: bytes
    payload_type: str = field(name="payloadType")
    signatures: tuple[Signature, ...]


def key_id(public_key: bytes) -> str:
    """Name of an Ed25519 key: lower-case hex SHA-256 of its 32 raw bytes."""
    return sha256(public_key).hexdigest()


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed. Lengths are in bytes, so nothing can slide between type and payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, *, keyid: str, private_key: Signs) -> bytes:
    """The envelope as JSON bytes."""
    signature = Signature(keyid=keyid, sig=private_key.sign(pae(payload_type, payload)))
    return msgspec.json.encode(Envelope(payload=payload, payload_type=payload_type, signatures=(signature,)))


def verify(envelope: bytes, keys: Mapping[str, bytes], *, payload_type: str) -> bytes:
    """The payload, when at least one of `keys` (name -> 32 raw bytes) signed it as `payload_type` and no claim is false.

    Raises SignatureInvalid with `reason`, an EnvelopeFault.
    """
    _check_keys(keys, payload_type)
    parsed = _parse(envelope, payload_type)
    if parsed.payload_type != payload_type:
        raise _invalid(payload_type, EnvelopeFault.WRONG_TYPE, f"it says it is {parsed.payload_type!r}")
    if not parsed.signatures:
        raise _invalid(payload_type, EnvelopeFault.UNSIGNED, "it carries no signature")
    names = [signature.keyid for signature in parsed.signatures]
    if len(set(names)) != len(names):
        raise _invalid(payload_type, EnvelopeFault.DUPLICATE_KEY, "one key signs twice")
    known = [signature for signature in parsed.signatures if signature.keyid in keys]
    if not known:
        raise _invalid(payload_type, EnvelopeFault.UNKNOWN_KEY, f"no trusted key among {', '.join(names)}")
    signed = pae(payload_type, parsed.payload)
    for signature in known:
        if not valid(keys[signature.keyid], signature.sig, signed):
            raise _invalid(payload_type, EnvelopeFault.BAD_SIGNATURE, f"key {signature.keyid} did not sign this")
    return parsed.payload


def names(envelope: bytes) -> tuple[str, ...]:
    """The keys an envelope says it is signed by: true of the known ones once `verify` took it. Raises SignatureInvalid."""
    return tuple(signature.keyid for signature in _parse(envelope, "").signatures)


def valid(public_key: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether the Ed25519 key made the signature over exactly these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_keys(keys: Mapping[str, bytes], payload_type: str) -> None:
    if not keys:
        raise _invalid(payload_type, EnvelopeFault.NO_KEYS, "there is no trusted key to check it with")
    for name, public_key in keys.items():
        if len(public_key) != KEY_BYTES or name != key_id(public_key):
            raise _invalid(
                payload_type, EnvelopeFault.BAD_KEY, f"trusted key {name} is not an Ed25519 key of that name"
            )


def _parse(envelope: bytes, payload_type: str) -> Envelope:
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise _invalid(payload_type, EnvelopeFault.MALFORMED, f"it exceeds {MAX_ENVELOPE_BYTES} bytes")
    try:
        return msgspec.json.decode(envelope, type=Envelope)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # bad UTF-8 comes as a ValueError
        raise _invalid(payload_type, EnvelopeFault.MALFORMED, str(error)) from error


def _invalid(document: str, reason: EnvelopeFault, problem: str) -> SignatureInvalid:
    return SignatureInvalid(document=document, problem=problem, reason=reason)
