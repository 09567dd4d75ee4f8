# SPDX-License-Identifier: Apache-2.0
"""Attacks on the way of the catalogue: by whoever sits between, and by thieves of online or release keys."""

import itertools
import shutil
from datetime import UTC, datetime
from typing import ClassVar

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import SlowRetrievalError
from tuf.api.metadata import DelegatedRole, Delegations, Targets

from skerry.errors import CatalogueRefused, HubUnreachable, RoadError
from skerry.testing.repository import DAY, Repository, meta, signed_bytes
from skerry.trust.fetcher import HttpFetcher
from skerry.wire.v1.device import ASSIGNMENT_KEYS_TARGET
from support.victim import INSTALLED, NOW, keys_file


def edited(data, change, *, keys=()):
    """Metadata changed by someone who holds `keys` (none: its signatures no longer fit)."""
    document = msgspec.json.decode(data)
    change(document["signed"])
    if keys:
        signed = str(encode_canonical(document["signed"])).encode()
        document["signatures"] = [
            {"keyid": CryptoSigner(key).public_key.keyid, "sig": key.sign(signed).hex()} for key in keys
        ]
    return msgspec.json.encode(document)


# --- freshness -----------------------------------------------------------------------------------------------------------


def test_rollback_of_the_timestamp(owner, victim):
    old = owner.repository.files["timestamp.json"]
    owner.repository.publish_timestamp()
    victim.refresh()
    before = victim.versions()
    owner.repository.files["timestamp.json"] = old
    assert victim.refused() == "rollback"
    assert victim.versions() == before


def test_rollback_of_the_snapshot_by_a_thief_of_the_timestamp_key(owner, victim):
    repository = owner.repository
    old = repository.snapshot.version, repository.files[f"{repository.snapshot.version}.snapshot.json"]
    repository.publish_snapshot()
    repository.publish_timestamp()
    victim.refresh()
    before = victim.versions()
    repository.timestamp.version += 1
    repository.timestamp.snapshot_meta = meta(*old)
    repository.files["timestamp.json"] = repository.sign(repository.timestamp, "timestamp")
    assert victim.refused() == "rollback"
    assert victim.versions() == before


def test_rollback_of_a_line_by_a_thief_of_the_online_keys(owner, victim):
    ref = owner.release("1.0.0", 1)
    catalogue = victim.refresh()
    assert catalogue.entry(ref.target) is not None
    owner.repository.lines["line-vision"].version -= 1
    owner.repository.publish_snapshot()
    owner.repository.publish_timestamp()
    assert victim.refused() == "rollback"
    assert victim.versions()["line-vision"] == owner.repository.lines["line-vision"].version + 1


def test_freeze(owner, victim):
    victim.refresh()
    before = victim.versions()
    victim.clock.advance(DAY + 1)
    assert victim.refused() == "freeze"
    assert victim.versions() == before


def test_clock_set_back(owner, victim):
    """Yesterday's repository is served again, and the device's clock is turned back to when it was fresh."""
    owner.repository.publish_timestamp()
    victim.refresh()
    victim.clock.advance(2 * DAY)
    owner.repository.now = victim.clock.now()
    recorded = owner.repository.recorded()
    owner.repository.publish_timestamp()
    victim.refresh()
    shutil.rmtree(victim.metadata)
    victim.clock.jump(-2 * DAY)
    recorded["timestamp.json"] = edited(
        recorded["timestamp.json"],
        lambda signed: signed.update(
            expires=datetime.fromtimestamp(int(NOW + DAY), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ),
        keys=owner.repository.keys["timestamp"],
    )
    victim.memory.files = recorded
    assert victim.clock.now() < NOW + DAY  # by the clock alone it is fresh
    assert victim.refused() == "freeze"
    assert "timestamp" not in victim.versions()


def test_clock_far_ahead_does_not_lock_the_device_out(owner, victim):
    victim.clock.jump(20 * 365 * DAY)
    assert victim.refused() == "freeze"
    assert victim.floors().time == 0.0
    victim.clock.jump(-20 * 365 * DAY)
    assert victim.refused() == ""


def test_metadata_wiped_and_old_repository_replayed(owner, victim):
    """TUF alone accepts this as long as nothing has expired."""
    recorded = owner.repository.recorded()
    owner.release("1.0.0", 1)
    victim.refresh()
    shutil.rmtree(victim.metadata)
    victim.memory.files = recorded
    catalogue = victim.catalogue()
    with pytest.raises(CatalogueRefused) as refusal:
        catalogue.refresh(victim.floors())
    assert refusal.value.fields["reason"] == "rollback"
    with pytest.raises(CatalogueRefused):
        catalogue.entry("vision/digits/1.0.0.json")
    with pytest.raises(CatalogueRefused):  # nor by the side door
        victim.catalogue().open_offline(victim.floors())


def test_targets_rolled_back_after_a_wipe_with_stolen_online_keys(owner, victim):
    """The thief may freshly sign that the old targets, which name a disowned assignment key, are the newest."""
    repository = owner.repository
    stolen, owner.hub_key = owner.hub_key, Ed25519PrivateKey.generate()
    repository.add_target(ASSIGNMENT_KEYS_TARGET, keys_file(owner.hub_key))
    repository.publish("targets")
    victim.refresh()
    shutil.rmtree(victim.metadata)
    repository.targets.version -= 1
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert victim.refused() == "rollback"
    assert victim.follow(owner.assign(sequence=9, key=stolen)) == "rollback"


def test_root_rolled_back_after_a_wipe(owner, victim):
    recorded = owner.repository.recorded()
    owner.repository.rotate_root()
    victim.refresh()
    shutil.rmtree(victim.metadata)
    victim.memory.files = recorded
    assert victim.refused() == "rollback"
    assert victim.floors().catalogue.root == 2


def test_fast_forward_is_undone_by_replacing_the_online_keys(owner, victim):
    """A thief of the online keys runs the versions up, so that honest ones look like a rollback."""
    repository = owner.repository
    repository.snapshot.version = repository.timestamp.version = 2**31
    repository.publish_snapshot()
    repository.publish_timestamp()
    victim.refresh()
    repository.replace_online_keys()
    assert victim.refused() == ""
    assert victim.versions()["timestamp"] == 1


# --- mixing, withholding, flooding ---------------------------------------------------------------------------------------


def test_mix_and_match_of_snapshot_and_timestamp(owner, victim):
    victim.refresh()
    repository = owner.repository
    old = repository.files[f"{repository.snapshot.version}.snapshot.json"]
    repository.publish_snapshot()
    repository.publish_timestamp()
    repository.files[f"{repository.snapshot.version}.snapshot.json"] = old
    before = victim.versions()
    assert victim.refused() == "mix-and-match"
    assert victim.versions()["snapshot"] == before["snapshot"]


def test_mix_and_match_of_a_line_of_another_time(owner, victim):
    ref = owner.release("1.0.0", 1)
    old = owner.repository.files["2.line-vision.json"]
    owner.release("1.1.0", 2)
    owner.repository.files["3.line-vision.json"] = old
    assert victim.follow(owner.assign(ref)) == "mix-and-match"
    assert victim.installed() == []
    assert "line-vision" not in victim.versions()


def test_mix_and_match_without_hashes_is_seen_by_the_version(owner, victim):
    ref = owner.release("1.0.0", 1)
    old = owner.repository.files["2.line-vision.json"]
    owner.release("1.1.0", 2)
    repository = owner.repository
    repository.files["3.line-vision.json"] = old
    repository.publish_snapshot()
    repository.snapshot.meta["line-vision.json"].hashes = None
    repository.snapshot.meta["line-vision.json"].length = None
    repository.files[f"{repository.snapshot.version}.snapshot.json"] = repository.sign(repository.snapshot, "snapshot")
    repository.publish_timestamp()
    assert victim.follow(owner.assign(ref)) == "mix-and-match"
    assert victim.installed() == []


def test_endless_timestamp(owner, victim):
    victim.refresh()
    sent = itertools.count()

    def endless():
        while next(sent) < 10_000:
            yield b"x" * 65_536

    victim.memory.instead["timestamp.json"] = endless
    before = victim.versions()
    assert victim.refused() == "endless-data"
    assert next(sent) < 10  # it stopped reading
    assert victim.versions() == before


def test_endless_root(owner, victim):
    victim.memory.instead["2.root.json"] = lambda: itertools.repeat(b"x" * 65_536, 1000)
    assert victim.refused() == "endless-data"
    assert victim.versions() == {"root": 1}


def test_slow_retrieval(victim):
    """A byte now and then, for ever: a timeout per read never fires."""

    class Reply:
        status = 200
        headers: ClassVar[dict[str, str]] = {}

        def chunks(self, size=65536):
            while True:
                victim.clock.advance(20.0)
                yield b"x"

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return None

    class Http:
        def request(self, method, url, **options):
            return Reply()

    victim.fetcher = HttpFetcher(Http(), victim.clock, max_seconds=120.0)
    assert victim.refused() == "slow-retrieval"
    assert victim.versions() == {"root": 1}
    with pytest.raises(SlowRetrievalError):
        victim.fetcher.download_bytes("https://hub.test/x", 1_000_000)


def test_role_dropped_from_the_snapshot(owner, victim):
    owner.release("1.0.0", 1)
    victim.refresh()
    repository = owner.repository
    del repository.lines["line-vision"]
    del repository.snapshot.meta["line-vision.json"]
    repository.publish_snapshot()
    repository.publish_timestamp()
    before = victim.versions()
    assert victim.refused() == "role-dropped"
    assert victim.versions()["snapshot"] == before["snapshot"]


def test_role_never_put_into_the_snapshot(owner, victim):
    ref = owner.release("1.0.0", 1)
    repository = owner.repository
    repository.snapshot.meta.pop("line-vision.json")
    del repository.lines["line-vision"]
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert victim.follow(owner.assign(ref)) == "role-dropped"
    assert victim.installed() == []


def test_withheld_metadata_is_bad_road_not_bad_trust(owner, victim):
    del owner.repository.files["timestamp.json"]
    with pytest.raises(RoadError):
        victim.refresh()


def test_dead_network_leaves_the_last_verified_catalogue_usable(owner, victim):
    ref = owner.release("1.0.0", 1)
    assert victim.follow(owner.assign(ref)) == INSTALLED

    def dead():
        yield b""
        raise HubUnreachable(url="https://hub.test", problem="no route")

    victim.memory.instead["timestamp.json"] = dead
    with pytest.raises(HubUnreachable):
        victim.refresh()
    offline = victim.catalogue()
    offline.open_offline(victim.floors())
    assert offline.entry(ref.target).digest == ref.digest
    victim.memory.files = {}
    assert offline.assignment_keys().keys


# --- signatures ----------------------------------------------------------------------------------------------------------


def test_unsigned_timestamp(owner, victim):
    victim.refresh()
    owner.repository.publish_timestamp()
    document = msgspec.json.decode(owner.repository.files["timestamp.json"])
    document["signatures"] = []
    owner.repository.files["timestamp.json"] = msgspec.json.encode(document)
    before = victim.versions()
    assert victim.refused() == "unsigned"
    assert victim.versions() == before


def test_altered_timestamp(owner, victim):
    victim.refresh()
    owner.repository.files["timestamp.json"] = edited(
        owner.repository.files["timestamp.json"], lambda signed: signed.update(version=99)
    )
    assert victim.refused() == "unsigned"


def test_stolen_online_keys_cannot_forge_a_release(owner, victim):
    """Snapshot and timestamp keys sign anything they like around a release role made by the thief."""
    ref = owner.release("1.0.0", 1)
    victim.refresh()
    repository = owner.repository
    repository.keys["line-vision"] = [Ed25519PrivateKey.generate()]
    evil = owner.release("6.6.6", 666)
    assert victim.follow(owner.assign(evil)) == "unsigned"
    assert victim.follow(owner.assign(ref, sequence=2)) == "unsigned"
    assert victim.installed() == []


def test_stolen_online_keys_cannot_forge_the_targets_role(owner, victim):
    victim.refresh()
    before = victim.versions()
    owner.repository.keys["targets"] = [Ed25519PrivateKey.generate()]
    owner.repository.publish("targets")
    assert victim.refused() == "unsigned"
    assert victim.versions()["targets"] == before["targets"]


def test_stolen_line_key_reaches_only_its_line(owner, victim):
    """The key of line audio signs an entry at a path of line vision: nobody asks it."""
    good = owner.release("1.0.0", 1)
    owner.name(good, b"{}", role="line-audio")
    owner.repository.files[f"targets/{good.target}"] = b"{}"
    catalogue = victim.refresh()
    assert catalogue.entry(good.target).digest == good.digest
    assert victim.follow(owner.assign(good)) == INSTALLED


def test_line_key_cannot_delegate_into_another_line(owner, victim):
    good = owner.release("1.0.0", 1)
    thief = owner.repository.lines["line-audio"]
    thief.delegations = Delegations(keys={}, roles={})
    thief.delegations.roles["line-vision"] = DelegatedRole("line-vision", [], 1, terminating=True, paths=["vision/*/*"])
    thief.add_key(CryptoSigner(Ed25519PrivateKey.generate()).public_key, "line-vision")
    owner.repository.publish("line-audio")
    assert victim.refresh().entry(good.target).digest == good.digest
    assert victim.refresh().entry("audio/digits/1.0.0.json") is None


def test_root_signed_by_one_of_two(owner, victim):
    repository = owner.repository
    repository.root.version = 2
    repository.publish_root(signers=repository.keys["root"][:1])
    assert victim.refused() == "unsigned"
    assert victim.versions()["root"] == 1


def test_root_signed_twice_by_one_holder(owner, victim):
    """The same signature under a second key id does not make two."""
    repository = owner.repository
    repository.root.version = 2
    repository.publish_root(signers=repository.keys["root"][:1])
    document = msgspec.json.decode(repository.files["2.root.json"])
    other = CryptoSigner(repository.keys["root"][1]).public_key.keyid
    document["signatures"].append({"keyid": other, "sig": document["signatures"][0]["sig"]})
    repository.files["2.root.json"] = msgspec.json.encode(document)
    assert victim.refused() == "unsigned"
    assert victim.versions()["root"] == 1


def test_root_signed_by_its_own_new_keys_only(owner, victim):
    repository = owner.repository
    repository.rotate_root()
    repository.publish_root(signers=repository.keys["root"])
    assert victim.refused() == "unsigned"
    assert victim.versions()["root"] == 1


def test_root_that_skips_a_version(owner, victim):
    repository = owner.repository
    repository.root.version = 3
    repository.publish_root()
    repository.files["2.root.json"] = repository.files.pop("3.root.json")
    assert victim.refused() == "rollback"
    assert victim.versions()["root"] == 1


def test_threshold_zero_in_a_root(owner, victim):
    repository = owner.repository
    repository.files["2.root.json"] = edited(
        repository.files["1.root.json"],
        lambda signed: (signed.update(version=2), signed["roles"]["timestamp"].update(threshold=0)),
    )
    assert victim.refused() == "malformed"
    assert victim.versions()["root"] == 1


def test_threshold_zero_in_a_delegation(owner, victim):
    repository = owner.repository
    signed = repository.targets
    role = signed.delegations.roles["line-vision"]
    role.threshold = 0
    repository.publish("targets")
    assert victim.refused() == "malformed"
    assert "targets" not in victim.versions()


def test_one_key_under_two_ids(owner, victim):
    """A release role that asks for two signatures gets the same key twice, under a second name."""
    repository = owner.repository
    delegations = repository.targets.delegations
    (keyid,) = delegations.roles["line-vision"].keyids
    twin = msgspec.json.decode(msgspec.json.encode(delegations.keys[keyid].to_dict()))
    delegations.keys["twin"] = Key.from_dict("twin", twin)
    delegations.roles["line-vision"].keyids.append("twin")
    delegations.roles["line-vision"].threshold = 2
    repository.publish("targets")
    ref = owner.release("1.0.0", 1)
    version = repository.lines["line-vision"].version
    document = msgspec.json.decode(repository.files[f"{version}.line-vision.json"])
    document["signatures"].append({"keyid": "twin", "sig": document["signatures"][0]["sig"]})
    repository.files[f"{version}.line-vision.json"] = msgspec.json.encode(document)
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert victim.follow(owner.assign(ref)) == "unsigned"
    assert victim.installed() == []


def test_one_key_under_two_ids_of_the_root(owner, victim):
    """The timestamp role of the root itself: refused at the refresh, before anything is looked up."""
    repository = owner.repository
    (keyid,) = repository.root.roles["timestamp"].keyids
    repository.root.keys["twin"] = Key.from_dict("twin", repository.root.keys[keyid].to_dict())
    repository.root.roles["timestamp"].keyids.append("twin")
    repository.root.version += 1
    repository.publish_root()
    assert victim.refused() == "unsigned"


def test_target_named_by_a_weaker_digest_only(owner, victim):
    good = owner.release("1.0.0", 1)
    info = owner.repository.lines["line-vision"].targets[good.target]
    info.hashes = {"sha512": "0" * 128}
    owner.repository.publish("line-vision")
    assert victim.follow(owner.assign(good)) == "wrong-target"
    assert victim.installed() == []


def test_catalogue_that_was_refused_answers_nothing_more(owner, victim):
    """Not even from what the same object had verified before: that is for `open_offline`, which asks the floors again."""
    good = owner.release("1.0.0", 1)
    catalogue = victim.refresh()
    assert catalogue.entry(good.target) is not None
    owner.repository.files["timestamp.json"] = b"{}"
    with pytest.raises(CatalogueRefused):
        catalogue.refresh(victim.floors())
    with pytest.raises(CatalogueRefused, match="no verified metadata"):
        catalogue.entry(good.target)


def test_algorithm_confusion(owner, victim):
    """A key re-labelled as one of another scheme verifies nothing, rather than anything."""
    repository = owner.repository
    for number, (keytype, scheme) in enumerate((("rsa", "rsassa-pss-sha256"), ("ed25519", "none"), ("hmac", "hs256"))):
        document = edited(
            repository.files["1.root.json"],
            lambda signed, k=keytype, s=scheme: [
                signed.update(version=2),
                *(key.update(keytype=k, scheme=s) for key in signed["keys"].values()),
            ],
            keys=repository.keys["root"],
        )
        repository.files["2.root.json"] = document
        assert victim.refused() in {"unsigned", "malformed"}, number
        assert victim.versions()["root"] == 1


def test_snapshot_served_as_timestamp(owner, victim):
    repository = owner.repository
    repository.files["timestamp.json"] = repository.sign(repository.snapshot, "timestamp")
    assert victim.refused() == "malformed"
    assert "timestamp" not in victim.versions()


def test_metadata_nested_to_exhaust_the_stack(owner, victim):
    owner.repository.files["timestamp.json"] = b'{"signed":' + b"[" * 7_000 + b"]" * 7_000 + b',"signatures":[]}'
    assert victim.refused() == "malformed"
    assert "timestamp" not in victim.versions()


@pytest.mark.parametrize("junk", [b"", b"\x00" * 300, b"null", b"[]", b'{"signed":{}}', b"\xff\xfe"])
def test_metadata_that_is_not_metadata(owner, victim, junk):
    owner.repository.files["timestamp.json"] = junk
    assert victim.refused() == "malformed"


def test_foreign_repository_with_its_own_root(owner, victim, tmp_path):
    """Everything is validly signed, by somebody else; the root in the metadata folder is theirs, too."""
    foreign = Repository(now=NOW)
    victim.refresh()
    shutil.rmtree(victim.metadata)
    victim.metadata.mkdir()
    (victim.metadata / "root.json").write_bytes(foreign.first_root)
    victim.memory.files = foreign.files
    assert victim.refused() == "unsigned"
    assert victim.versions() == {"root": 1}
    assert (victim.metadata / "root.json").read_bytes() == victim.factory_root


# --- names and local files -----------------------------------------------------------------------------------------------


def test_target_name_that_climbs_out(owner, victim, tmp_path):
    name = "../../../outside.json"
    owner.repository.add_target(name, b"payload")
    owner.repository.publish("targets")
    catalogue = victim.refresh()
    data = catalogue.read_target(name, cache=victim.folder / "targets")
    assert data == b"payload"
    assert [path.name for path in (victim.folder / "targets").iterdir()] == ["..%2F..%2F..%2Foutside.json"]
    assert victim.stray() == []


def test_role_name_that_climbs_out(owner, victim):
    repository = owner.repository
    name = "../../outside"
    role = Targets(version=1, expires=repository.targets.expires)
    key = Ed25519PrivateKey.generate()
    repository.targets.delegations.roles[name] = DelegatedRole(name, [], 1, terminating=True, paths=["evil/*/*"])
    repository.targets.add_key(CryptoSigner(key).public_key, name)
    data = signed_bytes(role, [key])
    repository.files["1...%2F..%2Foutside.json"] = data
    repository.snapshot.meta[f"{name}.json"] = meta(1, data)
    repository.publish("targets")
    assert victim.refresh().entry("evil/a/b.json") is None
    assert "1...%2F..%2Foutside.json" in victim.memory.requests
    assert victim.stray() == []


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "line-vision.json", "root.json"])
def test_zeroed_local_metadata_heals(owner, victim, name):
    """What a power cut leaves behind of files renamed without fsync."""
    ref = owner.release("1.0.0", 1)
    owner.repository.rotate_root()
    assert victim.refresh().entry(ref.target)
    (victim.metadata / name).write_bytes(b"")
    assert victim.refresh().entry(ref.target).digest == ref.digest
    assert victim.versions()["root"] == 2


def test_zeroed_root_history_heals(owner, victim):
    owner.repository.rotate_root()
    victim.refresh()
    for path in (victim.metadata / "root_history").iterdir():
        path.write_bytes(b"")
    assert victim.refused() == ""
    assert victim.versions()["root"] == 2


def test_poisoned_target_cache(owner, victim):
    """Someone with the disk swaps the cached assignment keys for their own."""
    victim.refresh().assignment_keys()
    (cached,) = (victim.folder / "targets").iterdir()
    genuine = cached.read_bytes()
    cached.write_bytes(genuine.replace(b"keyid", b"KEYID"))
    victim.refresh().assignment_keys()
    assert cached.read_bytes() == genuine
