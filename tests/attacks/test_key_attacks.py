# SPDX-License-Identifier: Apache-2.0
"""Keys that are missing, exposed, swapped or counted twice: nothing is signed or served with them."""

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.effects.disk import DiskFiles
from skerry.errors import CatalogueRefused, CeremonyError, FileExists, KeyFileError
from skerry.trust import ceremony, folder, keyfile, metadata, online, publish
from skerry.trust.online import OnlineTrust
from support.victim import NOW, keys_file, public

FILES = DiskFiles()
SECRET = "correct horse"  # pragma: allowlist secret


@pytest.fixture
def pem(tmp_path):
    path = tmp_path / "key.pem"
    keyfile.write_pair(FILES, path, passphrase=SECRET)
    return path


@pytest.fixture
def trust(tmp_path):
    """A real (not demo) trust folder."""
    plan = folder.FolderPlan(lines=("vision",))
    secrets = folder.Passphrases(offline=SECRET, online=SECRET)
    folder.make(tmp_path / "keys", plan, passphrases=secrets, files=FILES, now=NOW)
    return tmp_path / "keys" / "online"


def load(where, passphrase=SECRET, now=NOW):
    return OnlineTrust.load(where, passphrase=passphrase, files=FILES, now=now)


def test_key_file_missing(tmp_path):
    with pytest.raises(KeyFileError):
        keyfile.read_private(tmp_path / "none.pem", passphrase=SECRET)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_key_file_open_to_others(pem, mode):
    pem.chmod(mode)
    with pytest.raises(KeyFileError, match="others"):
        keyfile.read_private(pem, passphrase=SECRET)


@pytest.mark.parametrize("wrong", [None, "", "correct horse ", "CORRECT HORSE"])
def test_key_file_with_the_wrong_passphrase(pem, wrong):
    with pytest.raises(KeyFileError):
        keyfile.read_private(pem, passphrase=wrong)


@pytest.mark.parametrize(
    "junk", [b"", b"\x00" * 400, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_key_file_damaged(pem, junk):
    pem.write_bytes(junk)
    with pytest.raises(KeyFileError):
        keyfile.read_private(pem, passphrase=SECRET)


def test_key_file_of_another_algorithm(tmp_path):
    path = tmp_path / "ec.pem"
    key = generate_private_key(SECP256R1())
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    FILES.write(path, key.private_bytes(*encoding), mode=0o600)
    with pytest.raises(KeyFileError, match="Ed25519"):
        keyfile.read_private(path, passphrase=None)


def test_key_file_is_a_folder_or_device(tmp_path):
    with pytest.raises(KeyFileError):
        keyfile.read_private(tmp_path, passphrase=None)


def test_key_is_never_overwritten(pem):
    before = pem.read_bytes()
    with pytest.raises(FileExists):
        keyfile.write_pair(FILES, pem, passphrase=SECRET)
    assert pem.read_bytes() == before
    assert pem.stat().st_mode & 0o777 == 0o600


def test_plain_online_key_smuggled_into_a_real_trust_folder(trust):
    (trust / "snapshot.pem").unlink()
    keyfile.write_private(FILES, trust / "snapshot.pem", Ed25519PrivateKey.generate(), passphrase=None)
    with pytest.raises(KeyFileError, match="not encrypted"):
        load(trust)


@pytest.mark.parametrize("name", ["snapshot", "timestamp", "assignment"])
def test_online_key_swapped(trust, name):
    (trust / f"{name}.pem").unlink()
    keyfile.write_private(FILES, trust / f"{name}.pem", Ed25519PrivateKey.generate(), passphrase=SECRET)
    with pytest.raises(CeremonyError):
        load(trust)


def test_assignment_keys_swapped_on_the_hub(trust):
    path = trust / "targets" / "hub" / "assignment-keys.json"
    path.write_bytes(keys_file(Ed25519PrivateKey.generate()))
    with pytest.raises(CeremonyError, match="not the signed one"):
        load(trust)


@pytest.mark.parametrize("name", ["1.root.json", "1.targets.json", "1.line-vision.json"])
def test_offline_metadata_altered_on_the_hub(trust, name):
    path = trust / "metadata" / name
    path.write_bytes(path.read_bytes().replace(b"2027", b"2097").replace(b"2028", b"2098").replace(b"2029", b"2099"))
    with pytest.raises((CeremonyError, CatalogueRefused)):
        load(trust)


def test_trust_folder_cut_short(trust):
    load(trust)
    for path in sorted(trust.rglob("*.json")):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(CeremonyError):
            load(trust)
        path.write_bytes(data)


def test_hub_will_not_start_on_an_expired_root(trust):
    with pytest.raises(CatalogueRefused):
        load(trust, now=NOW + 3 * 365 * 86_400.0)


def test_real_trust_without_a_passphrase(tmp_path):
    plan = folder.FolderPlan(lines=("vision",))
    for secrets in (folder.Passphrases(offline=None, online=None), folder.Passphrases(offline="x", online="")):
        with pytest.raises(CeremonyError):
            folder.make(tmp_path / "keys", plan, passphrases=secrets, files=FILES, now=NOW)
    assert not (tmp_path / "keys").exists()


def plan_with(**changes):
    keys = [public(Ed25519PrivateKey.generate()) for _ in range(6)]
    fields = {
        "root_keys": tuple(keys[:3]),
        "root_threshold": 2,
        "targets_keys": (keys[3],),
        "snapshot_key": keys[4],
        "timestamp_key": keys[5],
    }
    return ceremony.RootPlan(**{**fields, **changes})


@pytest.mark.parametrize("threshold", [0, -1, 4])
def test_root_threshold_that_means_nothing(threshold):
    with pytest.raises(CeremonyError):
        ceremony.make_root(plan_with(root_threshold=threshold), expires=NOW)


def test_root_that_counts_one_holder_twice():
    key = public(Ed25519PrivateKey.generate())
    with pytest.raises(CeremonyError):
        ceremony.make_root(plan_with(root_keys=(key, key)), expires=NOW)


@pytest.mark.parametrize("role", ["snapshot_key", "timestamp_key"])
def test_hub_key_slipped_in_as_root_or_targets_key(role):
    plan = plan_with()
    for changes in ({role: plan.root_keys[0]}, {role: plan.targets_keys[0]}):
        with pytest.raises(CeremonyError):
            ceremony.make_root(ceremony.RootPlan(**{**plan_fields(plan), **changes}), expires=NOW)


def plan_fields(plan):
    return {name: getattr(plan, name) for name in plan.__struct_fields__}


def made_root(holders, *, expires=NOW + 1000):
    plan = plan_with(root_keys=tuple(map(public, holders)))
    return publish.sign_all(ceremony.make_root(plan, expires=expires), holders)


def refusal_of_next(first, candidate):
    with pytest.raises(CatalogueRefused) as refusal:
        ceremony.verify_next_root(first, candidate, now=NOW)
    return refusal.value.fields["reason"]


def test_old_holders_cannot_speak_for_new_ones():
    """Nobody becomes a holder, or is counted as one, without a signature of their own."""
    holders, newcomers = ([Ed25519PrivateKey.generate() for _ in range(3)] for _ in range(2))
    first = made_root(holders)
    plan = plan_with(root_keys=tuple(map(public, newcomers)))
    alone = publish.sign_all(ceremony.next_root(first, plan, expires=NOW + 1000), holders)
    assert refusal_of_next(first, alone) == "unsigned"
    ceremony.verify_next_root(first, publish.sign_all(alone, newcomers[:2]), now=NOW)


@pytest.mark.parametrize("version", [1, 3, 9])
def test_root_that_is_not_the_next_one(version):
    """Devices walk from each root to the next: a gap would leave them behind for good."""
    holders = [Ed25519PrivateKey.generate() for _ in range(3)]
    plan = plan_with(root_keys=tuple(map(public, holders)))
    other = publish.sign_all(ceremony.make_root(plan, expires=NOW + 1000, version=version), holders)
    assert refusal_of_next(made_root(holders), other) == "rollback"


def test_hub_does_not_start_on_a_root_its_predecessor_did_not_sign(trust):
    """Whoever can write to the folder could else let it serve a root of their own: every device would refuse it."""
    first = metadata_of(trust, "root", 1)
    thieves = [Ed25519PrivateKey.generate() for _ in range(3)]
    plan = ceremony.plan_of(first)
    plan = ceremony.RootPlan(**{**plan_fields(plan), "root_keys": tuple(map(public, thieves))})
    coup = publish.sign_all(ceremony.next_root(first, plan, expires=NOW + 1000), thieves)
    FILES.write(online.metadata_path(trust, "root", 2), coup)
    facts = online.read_facts(FILES, trust)
    online.write_facts(FILES, trust, msgspec.structs.replace(facts, root_version=2))
    with pytest.raises(CeremonyError, match="both thresholds"):
        load(trust)


def metadata_of(trust, role, version):
    data = FILES.read(online.metadata_path(trust, role, version))
    assert data is not None
    return data


def test_holders_removed_from_the_root_cannot_make_the_next_one():
    holders = [Ed25519PrivateKey.generate() for _ in range(3)]
    plan = plan_with(root_keys=tuple(map(public, holders)))
    first = ceremony.make_root(plan, expires=NOW + 1000)
    for holder in holders[:2]:
        first = metadata.add_signature(first, holder)
    newcomers = [Ed25519PrivateKey.generate() for _ in range(2)]
    coup = ceremony.next_root(first, plan_with(root_keys=tuple(map(public, newcomers))), expires=NOW + 1000)
    for newcomer in newcomers:
        coup = metadata.add_signature(coup, newcomer)
    with pytest.raises(CatalogueRefused) as refusal:
        ceremony.verify_next_root(first, coup, now=NOW)
    assert refusal.value.fields["reason"] == "unsigned"
    assert ceremony.root_status(coup, first).missing == 2
