# SPDX-License-Identifier: Apache-2.0
"""Keys that are missing, exposed, swapped or counted twice: nothing is signed or served with them."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.effects.disk import DiskFiles
from skerry.errors import CatalogueRefused, CeremonyError, FileExists, KeyFileError
from skerry.trust import ceremony, folder, keyfile, metadata
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
