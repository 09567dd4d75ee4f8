# SPDX-License-Identifier: Apache-2.0
"""Attempts to change what a device recorded: by whoever holds the records, and by whoever holds another device's key."""

from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.trust import chain
from skerry.trust.chain import Broken, Intact, next_entry, verify_chain
from skerry.wire.v1.report import HistoryEntry
from support.victim import DEVICE, NOW, public

KEY = Ed25519PrivateKey.generate()


def record(count=5, key=KEY, device=DEVICE):
    entries: list[HistoryEntry] = []
    for number in range(count):
        previous = entries[-1] if entries else None
        fields: dict[str, chain.Value] = {"bundle": f"digits:{number}", "ok": True, "ms": 1.5}
        entries.append(
            next_entry(previous, device_id=device, at=NOW + number, kind="committed", fields=fields, private_key=key)
        )
    return entries


def verdict(entries, *, head=""):
    return verify_chain(entries, device_id=DEVICE, public_key=public(KEY), head=head)


def test_intact_history():
    entries = record()
    assert verdict(entries, head=entries[-1].hash) == Intact(head=entries[-1].hash, count=5)
    assert verdict([]) == Intact(head="", count=0)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "refused"},
        {"at": NOW + 99},
        {"fields": {"bundle": "digits:9", "ok": True, "ms": 1.5}},
        {"fields": {"bundle": "digits:2", "ok": 1, "ms": 1.5}},
        {"fields": {}},
    ],
)
def test_entry_rewritten(change):
    entries = record()
    entries[2] = msgspec.structs.replace(entries[2], **change)
    assert verdict(entries) == Broken(n=3, problem=chain.ChainProblem.ALTERED)


def test_entry_rewritten_and_hashed_again():
    """Whoever holds the records can compute hashes, but not sign."""
    entries = record()
    forged = msgspec.structs.replace(entries[2], kind="refused")
    content = chain.canonical_bytes(forged, device_id=DEVICE)
    entries[2] = msgspec.structs.replace(forged, hash=f"sha256:{sha256(content).hexdigest()}")
    assert verdict(entries) == Broken(n=3, problem=chain.ChainProblem.BAD_SIGNATURE)


def test_rest_of_the_history_rewritten_with_another_key():
    entries = record()
    thief = Ed25519PrivateKey.generate()
    tail = next_entry(entries[2], device_id=DEVICE, at=NOW, kind="refused", fields={}, private_key=thief)
    assert verdict([*entries[:3], tail]) == Broken(n=4, problem=chain.ChainProblem.BAD_SIGNATURE)


def test_entry_cut_out_of_the_middle():
    entries = record()
    assert verdict([*entries[:2], *entries[3:]]) == Broken(n=3, problem=chain.ChainProblem.GAP)


def test_entry_cut_out_and_renumbered():
    entries = record()
    moved = [msgspec.structs.replace(entry, n=entry.n - 1) for entry in entries[3:]]
    assert verdict([*entries[:2], *moved]) == Broken(n=3, problem=chain.ChainProblem.UNLINKED)


def test_entries_cut_off_the_beginning():
    assert verdict(record()[1:]) == Broken(n=1, problem=chain.ChainProblem.GAP)


def test_entries_cut_off_the_end():
    """Only who knows the newest hash can see this."""
    entries = record()
    assert verdict(entries[:3], head=entries[-1].hash) == Broken(n=4, problem=chain.ChainProblem.CUT)
    assert verdict([], head=entries[-1].hash) == Broken(n=1, problem=chain.ChainProblem.CUT)


def test_entries_in_another_order():
    entries = record()
    entries[1], entries[2] = entries[2], entries[1]
    assert verdict(entries) == Broken(n=2, problem=chain.ChainProblem.GAP)
    entries[1], entries[2] = entries[2], entries[1]
    assert verdict([*entries, entries[0]]) == Broken(n=6, problem=chain.ChainProblem.REORDERED)


def test_history_of_another_device():
    """Same key on a cloned disk, other identity: the device id is part of what is signed."""
    assert verdict(record(device="device-2")) == Broken(n=1, problem=chain.ChainProblem.ALTERED)
    assert verdict(record(key=Ed25519PrivateKey.generate())) == Broken(n=1, problem=chain.ChainProblem.BAD_SIGNATURE)


def test_signature_moved_to_another_entry():
    entries = record()
    entries[2] = msgspec.structs.replace(entries[2], signature=entries[1].signature)
    assert verdict(entries) == Broken(n=3, problem=chain.ChainProblem.BAD_SIGNATURE)
    entries[2] = msgspec.structs.replace(entries[2], signature=b"")
    assert verdict(entries) == Broken(n=3, problem=chain.ChainProblem.BAD_SIGNATURE)
