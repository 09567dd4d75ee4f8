# SPDX-License-Identifier: Apache-2.0
import math

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.trust import chain
from skerry.wire.v1.report import HistoryEntry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def entry(previous=None, **changes):
    facts = {"device_id": "d", "at": 5, "kind": "k", "fields": {"b": 1, "a": "ä"}, "private_key": KEY}
    return chain.next_entry(previous, **{**facts, **changes})


def test_canonical_bytes_are_as_documented():
    assert (
        chain.canonical_bytes(entry(), device_id="d")
        == (
            '{"schema":"skerry/history/v1","device":"d","n":1,"at":5.0,"kind":"k",'
            '"fields":{"a":"ä","b":1},"previous":""}'
        ).encode()
    )


def test_entries_link():
    first = entry()
    second = entry(first)
    assert (second.n, second.previous) == (2, first.hash)


def test_entry_survives_the_wire():
    sent = entry(fields={"whole": 1.0, "count": 1, "yes": True, "text": "1"})
    back = msgspec.json.decode(msgspec.json.encode(sent), type=HistoryEntry)
    public = KEY.public_key().public_bytes_raw()
    assert chain.verify_chain([back], device_id="d", public_key=public) == chain.Intact(head=sent.hash, count=1)


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**63, -(2**63) - 1])
def test_numbers_json_cannot_carry_are_not_recorded(value):
    with pytest.raises(ValueError, match="x"):
        entry(fields={"x": value})
