# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.errors import SignatureInvalid
from skerry.trust import dsse

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NAME = dsse.key_id(PUBLIC)
TYPE = "application/example"


def test_pre_authentication_encoding_of_the_specification():
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_are_in_bytes():
    assert dsse.pae("ä", "é".encode()) == b"DSSEv1 2 \xc3\xa4 2 \xc3\xa9"


def test_signed_envelope_has_the_fields_of_the_specification():
    document = json.loads(dsse.sign(b"{}", TYPE, keyid=NAME, private_key=KEY))
    assert set(document) == {"payload", "payloadType", "signatures"}
    assert base64.b64decode(document["payload"]) == b"{}"
    (signature,) = document["signatures"]
    KEY.public_key().verify(base64.b64decode(signature["sig"]), b"DSSEv1 19 application/example 2 {}")


def test_payload_comes_back():
    envelope = dsse.sign(b"any \x00 bytes", TYPE, keyid=NAME, private_key=KEY)
    assert dsse.verify(envelope, {NAME: PUBLIC}, payload_type=TYPE) == b"any \x00 bytes"


def test_unknown_signatures_beside_a_good_one_do_not_matter():
    other = Ed25519PrivateKey.generate()
    document = json.loads(dsse.sign(b"x", TYPE, keyid=NAME, private_key=KEY))
    stranger = json.loads(dsse.sign(b"x", TYPE, keyid="stranger", private_key=other))
    document["signatures"] += stranger["signatures"]
    assert dsse.verify(json.dumps(document).encode(), {NAME: PUBLIC}, payload_type=TYPE) == b"x"


def test_refusal_names_document_and_reason():
    with pytest.raises(SignatureInvalid) as refusal:
        dsse.verify(dsse.sign(b"x", TYPE, keyid=NAME, private_key=KEY), {}, payload_type=TYPE)
    assert refusal.value.fields["document"] == TYPE
    assert refusal.value.fields["reason"] is dsse.EnvelopeFault.NO_KEYS
