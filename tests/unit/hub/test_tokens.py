# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from skerry.errors import Unauthenticated
from skerry.hub.services.tokens import (
    ACCESS_LIFE,
    AccessTokens,
    check_assertion,
    claimed_device,
    new_token,
    same_hash,
    token_hash,
)

NOW = 1_800_000_000.0
AUDIENCE = "urn:skerry:hub:test"
KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()
CLAIMS = {"iss": "d1", "sub": "d1", "aud": AUDIENCE, "exp": NOW + 120, "iat": NOW, "jti": "0123456789abcdef"}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def assertion(claims=None, *, alg="EdDSA", key=KEY, header=None, sign=None, **changes):
    """A JWT made by hand, so that it may be wrong in any way."""
    body = {name: value for name, value in {**(claims or CLAIMS), **changes}.items() if value is not ...}
    text = f"{b64(json.dumps(header or {'alg': alg}).encode())}.{b64(json.dumps(body).encode())}"
    signature = sign(text.encode()) if sign else key.sign(text.encode())
    return f"{text}.{b64(signature)}"


def check(token, **changes):
    return check_assertion(token, **{"public_key": PUBLIC, "audience": AUDIENCE, "now": NOW, **changes})


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_a_good_assertion_proves_the_device(alg):
    proven = check(assertion(alg=alg))
    assert (proven.device_id, proven.jti) == ("d1", "0123456789abcdef")
    assert proven.expires > NOW + 120
    assert claimed_device(assertion()) == "d1"


def test_audience_may_be_a_list_of_one():
    assert check(assertion(aud=[AUDIENCE])).device_id == "d1"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 61},
        {"exp": NOW + 3600},
        {"exp": ...},
        {"iat": NOW + 120, "exp": NOW + 240},
        {"iat": ...},
        {"aud": "urn:skerry:hub:other"},
        {"aud": [AUDIENCE, "urn:skerry:hub:other"]},
        {"aud": []},
        {"aud": ...},
        {"sub": "d2"},
        {"iss": "d2"},
        {"jti": ""},
        {"jti": "short"},
        {"jti": "x" * 200},
        {"jti": 7},
        {"jti": ...},
        {"nbf": NOW + 3600},
        {"exp": "soon"},
    ],
)
def test_each_claim_is_needed_and_checked(changes):
    with pytest.raises(Unauthenticated):
        check(assertion(**changes))


def test_another_key_is_refused():
    with pytest.raises(Unauthenticated):
        check(assertion(key=Ed25519PrivateKey.generate()))


def test_algorithm_none_is_refused():
    with pytest.raises(Unauthenticated):
        check(assertion(alg="none", sign=lambda _: b""))
    with pytest.raises(Unauthenticated):
        check(assertion(sign=lambda _: b""))


@pytest.mark.parametrize("form", ["raw", "pem"])
def test_public_key_as_hmac_secret_is_refused(form):
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secret = PUBLIC if form == "raw" else pem
    forged = assertion(alg="HS256", sign=lambda text: hmac.digest(secret, text, hashlib.sha256))
    with pytest.raises(Unauthenticated):
        check(forged)


@pytest.mark.parametrize(
    "header", [{"alg": "EdDSA", "crit": ["x"], "x": 1}, {"alg": "EdDSA", "b64": False}, {}, {"alg": 5}]
)
def test_odd_headers_are_refused(header):
    with pytest.raises(Unauthenticated):
        check(assertion(header=header or {"typ": "JWT"}))


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "\u2603.\u2603.\u2603", "x" * 200_000, "e30.e30.e30", "W10.W10.W10"]
)
def test_rubbish_is_refused(text):
    with pytest.raises(Unauthenticated):
        check(text)
    with pytest.raises(Unauthenticated):
        claimed_device(text)


def test_every_refusal_of_an_assertion_says_the_same():
    said = set()
    for token in (assertion(exp=NOW - 999), assertion(key=Ed25519PrivateKey.generate()), "a.b.c", assertion(jti="")):
        with pytest.raises(Unauthenticated) as caught:
            check(token)
        said.add(str(caught.value))
    assert len(said) == 1


def test_access_token_names_its_device_until_it_expires():
    tokens = AccessTokens(b"s" * 32)
    reply = tokens.issue("d1", now=NOW)
    assert reply.expires_in == ACCESS_LIFE
    assert tokens.device_of(reply.access_token, now=NOW + ACCESS_LIFE - 1) == "d1"
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.device_of(reply.access_token, now=NOW + ACCESS_LIFE + 1)


def test_replicas_with_one_secret_read_each_others_tokens_and_no_others():
    token = AccessTokens(b"s" * 32).issue("d1", now=NOW).access_token
    assert AccessTokens(b"s" * 32).device_of(token, now=NOW) == "d1"
    with pytest.raises(Unauthenticated):
        AccessTokens(b"t" * 32).device_of(token, now=NOW)


def test_assertion_is_no_access_token_and_the_other_way_round():
    tokens = AccessTokens(b"s" * 32)
    with pytest.raises(Unauthenticated):
        tokens.device_of(assertion(), now=NOW)
    with pytest.raises(Unauthenticated):
        check(tokens.issue("d1", now=NOW).access_token)


@pytest.mark.parametrize(
    "claims", [{"sub": "d1", "exp": int(NOW + 60)}, {"sub": 1, "exp": int(NOW + 60), "use": "skerry-device"}]
)
def test_access_token_for_another_use_is_refused(claims):
    token = assertion(claims, alg="HS256", sign=lambda text: hmac.digest(b"s" * 32, text, hashlib.sha256))
    with pytest.raises(Unauthenticated):
        AccessTokens(b"s" * 32).device_of(token, now=NOW)


def test_kept_hash_of_a_token_is_not_the_token():
    token = new_token("sko", b"r" * 32)
    assert token.startswith("sko_")
    assert len(token_hash(token)) == 32
    assert token.encode() not in token_hash(token)
    assert same_hash(token_hash(token), token_hash(token))
    assert not same_hash(token_hash(token), token_hash(token + "x"))
