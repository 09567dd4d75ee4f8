# SPDX-License-Identifier: Apache-2.0
"""Attacks on the second signature: by a middleman, by another device, by a thief of the hub's key."""

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.errors import StateDamaged
from skerry.trust import chain, dsse, floors
from skerry.trust.assignment import MAX_WORKLOADS, Accepted, Refused, decide_assignment
from skerry.wire.v1.device import (
    ASSIGNMENT_KEYS_TARGET,
    ASSIGNMENT_TYPE,
    Assignment,
    AssignmentKey,
    AssignmentKeys,
    WorkloadSpec,
)
from support.victim import DEVICE, INSTALLED, NOW, keys_file, public


@pytest.fixture
def ref(owner):
    return owner.release("1.0.0", 1)


def reenveloped(envelope, **changes):
    document = msgspec.json.decode(envelope)
    document.update(changes)
    return msgspec.json.encode(document)


def repayloaded(envelope, change):
    document = msgspec.json.decode(envelope)
    payload = msgspec.json.decode(base64.b64decode(document["payload"]))
    change(payload)
    document["payload"] = base64.b64encode(msgspec.json.encode(payload)).decode()
    return msgspec.json.encode(document)


def test_assignment_for_another_device(owner, victim, ref):
    assert victim.follow(owner.assign(ref, device="device-2")) == "other-device"
    assert victim.installed() == []
    assert victim.floors().assignment_sequence == 0


@pytest.mark.parametrize("name", ["../../evil", "/etc/cron.d/x", "a/b", "..", "", "a\0b", "V W", "x" * 64])
def test_workload_name_climbs_out_of_the_state_folder(owner, victim, ref, name):
    """A thief of the hub's key, or a careless operator: the name becomes the name of a record, a log and a URL."""
    envelope = owner.assign_workloads(WorkloadSpec(name=name, bundle=ref))
    assert victim.follow(envelope) == "malformed"
    assert victim.installed() == []
    assert victim.floors().assignment_sequence == 0


@pytest.mark.parametrize(
    "digest", ["sha256:..", "sha256:../workloads", "../..", "", "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"]
)
def test_digest_climbs_out_of_the_bundles_folder(owner, victim, ref, digest):
    """A thief of the hub's key: undoing a refused bundle would remove whatever folder its digest points to."""
    crooked = msgspec.structs.replace(ref, digest=digest)
    assert victim.follow(owner.assign(crooked)) == "malformed"
    assert victim.floors().assignment_sequence == 0


@pytest.mark.parametrize("number", [2**53, 2**63, 2**70, -1])
def test_numbers_no_database_or_history_can_hold(owner, victim, ref, number):
    assert victim.follow(owner.assign(ref, sequence=number)) == "malformed"
    assert victim.follow(owner.assign(msgspec.structs.replace(ref, release_seq=number))) == "malformed"
    assert victim.floors().assignment_sequence == 0


def test_more_workloads_than_a_device_can_mean(owner, victim, ref):
    assert victim.follow(owner.assign(*[ref] * (MAX_WORKLOADS + 1))) == "malformed"
    most = owner.assign(*[ref] * MAX_WORKLOADS)
    keys = msgspec.json.decode(keys_file(owner.hub_key), type=AssignmentKeys)
    decision = decide_assignment(most, keys=keys, device_id=DEVICE, floors=floors.Floors(), now=NOW)
    assert isinstance(decision, Accepted)


def test_sequence_run_up_by_a_thief_ends_with_the_stolen_key(owner, victim, ref):
    """The thief leaves no number for the honest hub. Once the catalogue names another key, what the old one said counts no more."""
    thief = owner.hub_key
    assert victim.follow(owner.assign(sequence=2**53 - 1)) == INSTALLED
    assert victim.follow(owner.assign(ref, sequence=8)) == "replayed"
    owner.hub_key = Ed25519PrivateKey.generate()
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(owner.hub_key))
    owner.repository.publish("targets")
    assert victim.follow(owner.assign(sequence=2**53 - 1, key=thief)) == "unknown-key"
    assert victim.follow(owner.assign(ref, sequence=8)) == INSTALLED
    assert victim.follow(owner.assign(sequence=7)) == "replayed"


def test_replay_while_two_keys_are_named(owner, victim):
    """A second key, and its going, bring nothing back that was signed by the first one."""
    first, second = owner.hub_key, Ed25519PrivateKey.generate()
    old = owner.assign(sequence=1)
    assert victim.follow(owner.assign(sequence=4)) == INSTALLED
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(first, second))
    owner.repository.publish("targets")
    assert victim.follow(owner.assign(sequence=3, key=second)) == "replayed"
    assert victim.follow(owner.assign(sequence=6, key=second)) == INSTALLED
    assert victim.follow(owner.assign(sequence=5)) == "replayed"
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(first))
    owner.repository.publish("targets")
    assert victim.follow(old) == "replayed"
    assert victim.follow(owner.assign(sequence=5)) == INSTALLED


def test_assignment_replayed(owner, victim, ref):
    """An operator moved the device on; the old assignment is sent again."""
    newer = owner.release("1.1.0", 2)
    old = owner.assign(ref, sequence=1)
    assert victim.follow(old) == INSTALLED
    assert victim.follow(owner.assign(newer, sequence=2)) == INSTALLED
    assert victim.follow(old) == "replayed"
    assert victim.installed() == ["digits-1.0.0", "digits-1.1.0"]
    assert victim.floors().assignment_sequence == 2


def test_two_assignments_with_one_number(owner, victim, ref):
    """A thief of the hub's key, or two hubs from one backup: the second one is not followed."""
    other = owner.release("1.1.0", 2)
    assert victim.follow(owner.assign(ref, sequence=7)) == INSTALLED
    assert victim.follow(owner.assign(other, sequence=7)) == "forked"
    assert victim.installed() == ["digits-1.0.0"]


def test_same_assignment_again_is_no_replay(owner, victim):
    envelope = owner.assign(sequence=3)
    assert victim.follow(envelope) == INSTALLED
    assert victim.follow(envelope) == INSTALLED


def test_expired_assignment(owner, victim, ref):
    envelope = owner.assign(ref, lifetime=60.0)
    victim.clock.advance(61.0)
    assert victim.follow(envelope) == "expired"
    assert victim.installed() == []


def test_expired_assignment_with_the_clock_set_back(owner, victim, ref):
    envelope = owner.assign(ref, lifetime=60.0)
    victim.clock.advance(3600.0)
    victim.refresh()
    victim.clock.jump(-3600.0)
    assert victim.follow(envelope) == "expired"
    assert victim.installed() == []


def test_unsigned_assignment(owner, victim, ref):
    assert victim.follow(reenveloped(owner.assign(ref), signatures=[])) == "unsigned"
    assert victim.installed() == []


def test_assignment_signed_by_a_key_the_catalogue_does_not_name(owner, victim, ref):
    """The device's own key, say, or one the thief made."""
    assert victim.follow(owner.assign(ref, key=Ed25519PrivateKey.generate())) == "unknown-key"
    assert victim.installed() == []


def test_assignment_altered_on_the_way(owner, victim, ref):
    longer = repayloaded(owner.assign(ref), lambda payload: payload.update(expires=NOW * 2))
    assert victim.follow(longer) == "bad-signature"
    redirected = repayloaded(owner.assign(ref), lambda payload: payload.update(device_id="device-2"))
    assert victim.follow(redirected) == "bad-signature"
    assert victim.installed() == []


def test_signature_borrowed_from_another_document_type(owner, victim, ref):
    """What the key signed as something else is not an assignment."""
    payload = msgspec.json.encode(Assignment(device_id=DEVICE, sequence=1, issued=NOW, expires=NOW + 60))
    name = dsse.key_id(public(owner.hub_key))
    envelope = dsse.sign(payload, chain.HISTORY_TYPE, keyid=name, private_key=owner.hub_key)
    assert victim.follow(envelope) == "wrong-type"
    assert victim.follow(reenveloped(envelope, payloadType=ASSIGNMENT_TYPE)) == "bad-signature"


def test_catalogue_that_names_one_assignment_key_twice(owner, victim, ref):
    """One of the two could be meant to take the other's place."""
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(owner.hub_key, owner.hub_key))
    owner.repository.publish("targets")
    assert victim.follow(owner.assign(ref)) == "duplicate-key"
    assert victim.installed() == []


def test_one_good_signature_does_not_carry_a_false_one(owner, victim, ref):
    second = Ed25519PrivateKey.generate()
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(owner.hub_key, second))
    owner.repository.publish("targets")
    envelope = msgspec.json.decode(owner.assign(ref))
    false = {"keyid": dsse.key_id(public(second)), "sig": envelope["signatures"][0]["sig"]}
    envelope["signatures"].append(false)
    assert victim.follow(msgspec.json.encode(envelope)) == "bad-signature"
    assert victim.installed() == []


def test_one_key_signs_twice(owner, victim, ref):
    envelope = msgspec.json.decode(owner.assign(ref))
    envelope["signatures"] *= 2
    assert victim.follow(msgspec.json.encode(envelope)) == "duplicate-key"


def test_empty_key_list_trusts_nobody(owner, victim, ref):
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file())
    owner.repository.publish("targets")
    assert victim.follow(owner.assign(ref)) == "no-keys"
    assert victim.installed() == []


def test_key_list_that_is_gone_trusts_nobody(owner, victim, ref):
    del owner.repository.targets.targets[ASSIGNMENT_KEYS_TARGET]
    owner.repository.publish("targets")
    assert victim.follow(owner.assign(ref)) == "wrong-target"
    assert victim.installed() == []


@pytest.mark.parametrize("key", [b"", b"\x00" * 31, b"\x00" * 32, b"\x04" + b"\x11" * 64])
def test_key_that_is_not_an_ed25519_key_of_its_name(owner, key):
    """Algorithm confusion, truncated keys, and the all-zero key under which anything may verify."""
    keys = AssignmentKeys(keys=(AssignmentKey(keyid="f" * 64, public_key=key),))
    decision = decide_assignment(owner.assign(), keys=keys, device_id=DEVICE, floors=floors.Floors(), now=NOW)
    assert isinstance(decision, Refused)
    assert decision.reason == "bad-key"


def test_one_key_under_two_names(owner):
    raw = public(owner.hub_key)
    keys = AssignmentKeys(
        keys=(AssignmentKey(keyid=dsse.key_id(raw), public_key=raw), AssignmentKey(keyid="twin", public_key=raw))
    )
    decision = decide_assignment(owner.assign(), keys=keys, device_id=DEVICE, floors=floors.Floors(), now=NOW)
    assert isinstance(decision, Refused)
    assert decision.reason == "bad-key"


def test_stolen_hub_key_is_worthless_once_the_catalogue_names_another(owner, victim, ref):
    stolen, owner.hub_key = owner.hub_key, Ed25519PrivateKey.generate()
    owner.repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(owner.hub_key))
    owner.repository.publish("targets")
    assert victim.follow(owner.assign(ref, sequence=99, key=stolen)) == "unknown-key"
    assert victim.follow(owner.assign(ref, sequence=1)) == INSTALLED


@pytest.mark.parametrize(
    "junk", [b"", b"null", b"{}", b"\xff", b'{"payload":"!","payloadType":"x","signatures":[]}', b"[" * 100_000]
)
def test_envelope_that_is_not_one(owner, victim, junk):
    assert victim.follow(junk) == "malformed"
    assert victim.installed() == []


def test_envelope_too_large_to_read(owner, victim):
    assert victim.follow(b" " * (dsse.MAX_ENVELOPE_BYTES + 1)) == "malformed"


def test_workload_that_names_one_bundle_and_points_to_another(owner, victim, ref):
    crooked = msgspec.structs.replace(ref, target="vision/other/9.9.9.json")
    assert victim.follow(owner.assign(crooked)) == "malformed"
    assert victim.installed() == []


def test_floors_wiped_by_the_attacker_stop_the_device(owner, victim, ref):
    """Starting again from zero would let every replay in: the device asks for help instead."""
    assert victim.follow(owner.assign(ref)) == INSTALLED
    genuine = victim.floors_file.read_bytes()
    lowered = genuine.replace(b'"assignment_sequence":1', b'"assignment_sequence":0')
    for damage in (b"", b"{}", b"\x00" * len(genuine), lowered):
        assert damage != genuine
        victim.floors_file.write_bytes(damage)
        with pytest.raises(StateDamaged):
            victim.refresh()
    victim.floors_file.unlink()
    with pytest.raises(StateDamaged):
        victim.refresh()
    assert victim.installed() == ["digits-1.0.0"]
