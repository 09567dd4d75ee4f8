# SPDX-License-Identifier: Apache-2.0
"""Tokens of devices and people, as decisions on bytes and `now`.

- a device proves itself with a signed assertion (RFC 7523, section 2.2: private_key_jwt) and gets an access token;
- access tokens are signed with a secret all replicas share, so no replica has to remember one;
- people's tokens and enrolment tokens are 256 random bits; only their SHA-256 is ever kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import ClassVar

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import OctKey, OKPKey
from joserfc.jws import JWSRegistry

from skerry.errors import Unauthenticated
from skerry.wire.v1.device import TokenReply

ACCESS_LIFE = 900.0
ASSERTION_LIFE = 300.0
LEEWAY = 60.0
"""How far a device's clock may be off. The `Date` header of every answer lets a device correct itself."""

_ACCESS_USE = "skerry-device"
_REFUSED = "the client assertion is not accepted"


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """A proven client assertion. `jti` must be remembered until `expires` and refused when seen again."""

    device_id: str
    jti: str
    expires: float


class _Claims(msgspec.Struct, frozen=True, kw_only=True):
    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float
    jti: str
    nbf: float | None = None


class _Ed25519Only(JWSRegistry):
    """One algorithm under its two names (RFC 8037 and RFC 9864); `none` and every other algorithm do not exist here."""

    names: ClassVar[frozenset[str]] = frozenset({"EdDSA", "Ed25519"})

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in self.names:
            raise UnsupportedAlgorithmError(name)
        return super().get_alg("Ed25519")


_ASSERTION_ALGORITHMS = _Ed25519Only(algorithms=["Ed25519"])


def claimed_device(assertion: str) -> str:
    """Whom an assertion says it is from. NOT proven: only good for finding the key to prove it with."""
    try:
        payload = assertion.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, ValueError) as error:
        raise Unauthenticated(problem=_REFUSED) from error
    return claims.iss


def check_assertion(assertion: str, *, public_key: bytes, audience: str, now: float) -> Assertion:
    """Prove an assertion against the 32 raw bytes of an Ed25519 key. Raises Unauthenticated, always with the same words."""
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _base64url(public_key)})
    try:
        token = jwt.decode(assertion, key, registry=_ASSERTION_ALGORITHMS)
        claims = msgspec.convert(token.claims, _Claims)
    except (JoseError, ValueError, TypeError) as error:
        raise Unauthenticated(problem=_REFUSED) from error
    if not _acceptable(claims, audience, now):
        raise Unauthenticated(problem=_REFUSED)
    return Assertion(device_id=claims.sub, jti=claims.jti, expires=claims.exp + LEEWAY)


def _acceptable(claims: _Claims, audience: str, now: float) -> bool:
    named = claims.aud if isinstance(claims.aud, list) else [claims.aud]
    return (
        claims.iss == claims.sub
        and named == [audience]
        and 8 <= len(claims.jti) <= 128  # noqa: PLR2004 - an empty nonce is no nonce, a huge one fills the database
        and claims.iat <= now + LEEWAY
        and now - LEEWAY < claims.exp <= claims.iat + ASSERTION_LIFE
        and (claims.nbf is None or claims.nbf <= now + LEEWAY)
    )


class AccessTokens:
    """Short-lived bearer tokens of devices, made and read with one shared secret of at least 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._key = OctKey.import_key(secret)

    def issue(self, device_id: str, *, now: float) -> TokenReply:
        claims = {"sub": device_id, "use": _ACCESS_USE, "exp": int(now + ACCESS_LIFE)}
        token = jwt.encode({"alg": "HS256"}, claims, self._key, algorithms=["HS256"])
        return TokenReply(access_token=token, token_type="Bearer", expires_in=int(ACCESS_LIFE))  # noqa: S106 - RFC 6750

    def device_of(self, token: str, *, now: float) -> str:
        """The device a token was issued to. Raises Unauthenticated."""
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"]).claims
        except (JoseError, ValueError, TypeError) as error:
            raise Unauthenticated(problem="the access token is not valid") from error
        device_id, expires = claims.get("sub"), claims.get("exp")
        if claims.get("use") != _ACCESS_USE or not isinstance(device_id, str) or not isinstance(expires, int):
            raise Unauthenticated(problem="the access token is not valid")
        if expires <= now:
            raise Unauthenticated(problem="the access token has expired")
        return device_id


def new_token(prefix: str, entropy: bytes) -> str:
    """A bearer token as text. The prefix tells people and secret scanners what it is for."""
    return f"{prefix}_{_base64url(entropy)}"


def token_hash(token: str) -> bytes:
    """What is kept of a token. Plain SHA-256 is enough, as there are 256 random bits to guess."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def same_hash(left: bytes, right: bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(left, right)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
