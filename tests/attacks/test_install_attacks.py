# SPDX-License-Identifier: Apache-2.0
"""Attacks that both signatures let through, or that come with the bundle itself."""

import shutil

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.testing.repository import DAY
from skerry.trust import floors
from skerry.trust.decision import ConfigFacts, InstallPolicy, Refused, decide_fetch, decide_install
from skerry.wire.v1.device import WorkloadSpec, target_path
from support import bundles
from support.victim import INSTALLED, NOW, Victim


def renamed(ref, version, **changes):
    return msgspec.structs.replace(ref, version=version, target=target_path(ref.line, ref.model, version), **changes)


def manifest_of(owner, ref):
    (path,) = (path for path in owner.repository.files if path.endswith(f"{ref.digest[7:]}.{ref.version}.json"))
    return path, owner.repository.files[path]


@pytest.fixture
def up_to_three(owner, victim):
    """Releases 1, 2 and 3 were installed one after the other; 2 is the floor now."""
    refs = [owner.release(f"1.{number}.0", number) for number in (1, 2, 3)]
    for number, ref in enumerate(refs, start=1):
        assert victim.follow(owner.assign(ref, sequence=number)) == INSTALLED
    assert victim.floors().release("vision", "digits") == 2
    return refs


def test_old_release_assigned_again(owner, victim, up_to_three):
    shutil.rmtree(victim.store)
    assert victim.follow(owner.assign(up_to_three[0], sequence=4)) == "rollback"
    assert victim.installed() == []


def test_one_step_undo_stays_possible(owner, victim, up_to_three):
    shutil.rmtree(victim.store)
    assert victim.follow(owner.assign(up_to_three[1], sequence=4)) == INSTALLED
    assert victim.installed() == ["digits-1.2.0"]
    assert victim.floors().release("vision", "digits") == 2


def test_old_model_republished_under_a_new_version(owner, victim, up_to_three):
    """The release key is authorised to sign this, and TUF accepts it. The bytes still say which release they are."""
    _, manifest = manifest_of(owner, up_to_three[0])
    again = renamed(up_to_three[0], "9.0.0", release_seq=9)
    owner.name(again, manifest)
    assert victim.follow(owner.assign(again, sequence=4)) == "release-seq-mismatch"
    assert "digits-9.0.0" not in victim.installed()


def test_old_model_republished_under_a_new_version_with_its_old_number(owner, victim, up_to_three):
    _, manifest = manifest_of(owner, up_to_three[0])
    again = renamed(up_to_three[0], "9.0.0")
    owner.name(again, manifest)
    assert victim.follow(owner.assign(again, sequence=4)) == "rollback"


def test_old_model_renumbered_in_the_assignment_only(owner, victim, up_to_three):
    again = msgspec.structs.replace(up_to_three[0], release_seq=9)
    assert victim.follow(owner.assign(again, sequence=4)) == "release-seq-mismatch"


def test_publisher_withdraws_old_releases_with_a_floor(owner, victim):
    """`floor_seq` of a release: devices that commit it never go back below, not even one step."""
    old = owner.release("1.0.0", 1)
    assert victim.follow(owner.assign(old, sequence=1)) == INSTALLED
    assert victim.follow(owner.assign(owner.release("2.0.0", 2, floor_seq=2), sequence=2)) == INSTALLED
    assert victim.follow(owner.assign(old, sequence=3)) == "rollback"


def test_floor_above_its_own_release(owner, victim):
    """A thief of a line's key would lock every device out of all honest releases."""
    evil = owner.release("6.6.6", 1)
    owner.name(evil, manifest_of(owner, evil)[1], floor_seq=2**40)
    assert victim.follow(owner.assign(evil)) == "malformed"
    assert victim.floors().releases == {}


def test_stolen_hub_key_cannot_install_what_was_never_released(owner, victim):
    bundle = bundles.bundle(version="6.6.6", release_seq=6)
    evil = owner.upload(bundle)
    owner.repository.files[f"targets/{evil.target}"] = bundle.manifest.data
    assert victim.follow(owner.assign(evil)) == "not-in-catalogue"
    assert victim.installed() == []


def test_stolen_hub_key_cannot_swap_the_digest(owner, victim):
    good = owner.release("1.0.0", 1)
    evil = owner.upload(bundles.bundle(version="1.0.0", release_seq=1, description="evil"))
    crooked = msgspec.structs.replace(good, digest=evil.digest)
    assert victim.follow(owner.assign(crooked)) == "digest-mismatch"
    assert victim.installed() == []


def test_stolen_line_key_cannot_install_what_was_never_assigned(owner, victim):
    good = owner.release("1.0.0", 1)
    evil = bundles.bundle(version="1.0.0", release_seq=1, description="evil")
    owner.upload(evil)
    owner.name(good, evil.manifest.data)
    assert victim.follow(owner.assign(good)) == "digest-mismatch"
    assert victim.installed() == []


def test_all_online_keys_stolen_install_nothing_new(owner, victim):
    """Snapshot, timestamp and assignment keys together, and a release role the thief signs with a key of their own."""
    owner.release("1.0.0", 1)
    victim.refresh()
    owner.repository.keys["line-vision"] = [Ed25519PrivateKey.generate()]
    evil = owner.release("6.6.6", 6)
    assert victim.follow(owner.assign(evil, sequence=1000)) == "unsigned"
    assert victim.installed() == []


def test_wrong_target_entry_that_describes_another_model(owner, victim):
    good = owner.release("1.0.0", 1)
    _, manifest = manifest_of(owner, good)
    owner.name(good, manifest, model="other")
    assert victim.follow(owner.assign(good)) == "wrong-target"
    assert victim.installed() == []


def test_wrong_target_bundle_published_under_another_models_name(owner, victim):
    good = owner.release("1.0.0", 1)
    _, manifest = manifest_of(owner, good)
    other = msgspec.structs.replace(good, model="doors", target=target_path("vision", "doors", "1.0.0"))
    owner.name(other, manifest)
    assert victim.follow(owner.assign(other)) == "wrong-target"
    assert victim.installed() == []


def test_bundle_of_one_line_published_in_another(owner, victim):
    good = owner.release("1.0.0", 1)
    _, manifest = manifest_of(owner, good)
    other = msgspec.structs.replace(good, line="audio", target=target_path("audio", "digits", "1.0.0"))
    owner.name(other, manifest)
    assert victim.follow(owner.assign(other)) == "wrong-line"
    assert victim.installed() == []


def test_line_this_device_does_not_belong_to(owner, tmp_path):
    device = Victim(tmp_path / "strict", owner, policy=InstallPolicy(lines=("audio",)))
    assert device.follow(owner.assign(owner.release("1.0.0", 1))) == "wrong-line"
    assert device.installed() == []


@pytest.mark.parametrize("custom", [None, {}, {"release_seq": "1"}, "text", {"line": "vision", "model": "digits"}])
def test_entry_without_a_release_number(owner, victim, custom):
    good = owner.release("1.0.0", 1)
    _, manifest = manifest_of(owner, good)
    owner.repository.add_target(good.target, manifest, role="line-vision", custom=custom)
    owner.repository.publish("line-vision")
    assert victim.follow(owner.assign(good)) == "malformed"
    assert victim.installed() == []


def test_bundle_that_failed_here_before(owner, victim):
    bad = owner.release("1.0.0", 1)
    victim.failed = frozenset({bad.digest})
    assert victim.follow(owner.assign(bad)) == "failed-before"
    assert victim.installed() == []


def test_bundle_packed_with_checks_skipped(owner, victim, tmp_path):
    skipped = owner.release("1.0.0", 1, unsafe=("self-test",))
    assert victim.follow(owner.assign(skipped)) == "unsafe-bundle"
    assert victim.installed() == []
    lenient = Victim(tmp_path / "lenient", owner, policy=InstallPolicy(allow_unsafe=("self-test",)))
    assert lenient.follow(owner.assign(skipped)) == INSTALLED


def test_install_from_a_catalogue_that_went_stale(owner, victim):
    """Cut off from the hub, the device keeps its catalogue for what is installed, not to install more."""
    good = owner.release("1.0.0", 1)
    victim.refresh().entry(good.target)
    victim.clock.advance(DAY + 1)
    offline = victim.catalogue()
    offline.open_offline(victim.floors())
    victim.refresh = lambda: offline
    offline.assignment_keys()
    assert victim.follow(owner.assign(good, lifetime=10 * DAY)) == "freeze"
    assert victim.installed() == []


def test_catalogue_that_went_stale_with_the_clock_set_back(owner, victim):
    """The entry is as old as it was, whatever the clock says now."""
    good = owner.release("1.0.0", 1)
    entry = victim.refresh().entry(good.target)
    seen = floors.raise_time(victim.floors(), entry.fresh_until + 1)
    decision = decide_fetch(
        spec=WorkloadSpec(name="w", bundle=good), entry=entry, floors=seen, failed_digests=frozenset(), now=NOW
    )
    assert isinstance(decision, Refused)
    assert decision.reason == "freeze"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"manifest_digest": "sha256:" + "0" * 64}, "digest-mismatch"),
        ({"name": "other"}, "wrong-target"),
        ({"version": "9.9.9"}, "wrong-target"),
        ({"line": "audio"}, "wrong-line"),
        ({"release_seq": 2}, "release-seq-mismatch"),
        ({"floor_seq": 1}, "release-seq-mismatch"),
        ({}, ""),
    ],
)
def test_wrong_target_bytes_in_hand_that_are_another_bundle(owner, victim, change, reason):
    """Whoever fetched it, and however: what lies there must say of itself what was signed."""
    good = owner.release("1.0.0", 1)
    told = ConfigFacts(
        name="digits", version="1.0.0", line="vision", release_seq=1, floor_seq=0, manifest_digest=good.digest
    )
    decision = decide_install(
        spec=WorkloadSpec(name="w", bundle=good),
        entry=victim.refresh().entry(good.target),
        facts=msgspec.structs.replace(told, **change),
        floors=victim.floors(),
        failed_digests=frozenset(),
        now=NOW,
    )
    assert (str(decision.reason) if isinstance(decision, Refused) else "") == reason


# --- bytes ---------------------------------------------------------------------------------------------------------------


def test_swapped_manifest(owner, victim):
    good, other = owner.release("1.0.0", 1), owner.release("1.1.0", 2)
    path, manifest = manifest_of(owner, good)
    owner.repository.files[path] = manifest_of(owner, other)[1].ljust(len(manifest))[: len(manifest)]
    assert victim.follow(owner.assign(good)) == "wrong-target"
    assert victim.installed() == []


def test_truncated_manifest(owner, victim):
    good = owner.release("1.0.0", 1)
    path, manifest = manifest_of(owner, good)
    owner.repository.files[path] = manifest[:-1]
    assert victim.follow(owner.assign(good)) == "wrong-target"
    assert victim.installed() == []


def test_lengthened_manifest(owner, victim):
    good = owner.release("1.0.0", 1)
    path, manifest = manifest_of(owner, good)
    owner.repository.files[path] = manifest + b" "
    assert victim.follow(owner.assign(good)) == "endless-data"
    assert victim.installed() == []


def weights(owner):
    """The largest blob of the only release."""
    return max(
        (path for path in owner.repository.files if path.startswith("blobs/")),
        key=lambda path: len(owner.repository.files[path]),
    )


def test_swapped_blob(owner, victim):
    good = owner.release("1.0.0", 1)
    path = weights(owner)
    owner.repository.files[path] = owner.repository.files[path][::-1]
    assert victim.follow(owner.assign(good)) == "DigestMismatch"
    assert victim.installed() == []


def test_truncated_blob(owner, victim):
    good = owner.release("1.0.0", 1)
    path = weights(owner)
    owner.repository.files[path] = owner.repository.files[path][:-1]
    assert victim.follow(owner.assign(good)) in {"SizeLie", "DigestMismatch"}
    assert victim.installed() == []


def test_lengthened_blob(owner, victim):
    good = owner.release("1.0.0", 1)
    owner.repository.files[weights(owner)] += b"\x00"
    assert victim.follow(owner.assign(good)) in {"SizeLie", "DigestMismatch"}
    assert victim.installed() == []
