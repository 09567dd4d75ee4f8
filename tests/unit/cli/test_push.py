# SPDX-License-Identifier: Apache-2.0
"""Push against real catalogue metadata and a real bundle; only the hub's HTTP is scripted."""

import json

import msgspec
import pytest
from tuf.api.metadata import Metadata, Targets

from skerry.bundle import oci
from skerry.bundle.archive import write_archive
from skerry.bundle.blob import MemoryBlob
from skerry.bundle.manifest import BundleConfig, Io, SelfTest, TensorSpec, Variant
from skerry.cli.passphrase import VARIABLE
from skerry.cli.push import blobs_of, counted
from skerry.cli.release import entry_of
from skerry.effects.disk import DiskFiles
from skerry.errors import DownloadBroken, FileExists
from skerry.trust import folder, keyfile, metadata, online, publish
from unit.cli.scripted import NOW, Reply, refusal

LINE = "body-shop"
ROLE = f"line-{LINE}"
ROLE_PATH = f"/api/v1/catalogue/roles/{ROLE}"


def make_bundle(version="1.5.1", release_seq=7, content=b"weights"):
    tensor = TensorSpec(name="x", dtype="FP32", shape=(-1, 2))
    config = BundleConfig(
        schema="skerry/bundle/v1",
        name="weld-defect",
        version=version,
        line=LINE,
        release_seq=release_seq,
        io=Io(inputs=(tensor,), outputs=(tensor,)),
        variants=(
            Variant(name="fp32", runtime="onnxruntime", precision="fp32", model="model.onnx", files=("model.onnx",)),
        ),
        self_test=SelfTest(file="self-test.npz", samples=1),
        files=(),
    )
    files = {
        "model.onnx": MemoryBlob(b"\x08\x07" + content * 100),
        "self-test.npz": MemoryBlob(b"PK\x05\x06" + bytes(18)),
    }
    return oci.build(config, files)


class Setting:
    """A trust folder, an archive, and a hub that serves the line's role."""

    def __init__(self, shell, tmp_path):
        self.shell = shell
        self.hub = shell.hub
        self.keys = tmp_path / "keys"
        nothing = folder.Passphrases(offline=None, online=None)
        folder.make(self.keys, folder.demo_plan((LINE,)), passphrases=nothing, files=DiskFiles(), now=NOW)
        self.trust = online.OnlineTrust.load(self.keys / "online", passphrase=None, files=DiskFiles(), now=NOW)
        self.key = self.keys / f"line-{LINE}.pem"
        self.archive = tmp_path / "weld.skb"
        self.bundle = make_bundle()
        with self.archive.open("wb") as file:
            write_archive(self.bundle, file)
        self.serve(self.trust.roles[ROLE])
        self.hub.on("GET", "/api/v1/catalogue/roles/targets", self.trust.roles["targets"])
        self.hub.on("POST", ROLE_PATH, status=201)
        for digest, _ in blobs_of(self.bundle):
            self.hub.on("PUT", f"/api/v1/blobs/{digest}", status=201)

    def serve(self, role):
        self.hub.on("GET", ROLE_PATH, role)

    def push(self, *more):
        return self.shell(" ".join(["push", str(self.archive), "--key", str(self.key), *more]))

    def published(self):
        return [call.body for call in self.hub.sent("POST", ROLE_PATH)]

    def uploads(self):
        return [call for call in self.hub.calls if call.method == "PUT"]


@pytest.fixture
def setting(shell, tmp_path):
    return Setting(shell, tmp_path)


def test_push_uploads_what_is_missing_and_publishes_what_the_hub_will_accept(setting):
    known = setting.bundle.manifest.config.digest
    setting.hub.on("HEAD", f"/api/v1/blobs/{known}")
    ran = setting.push()
    assert ran.code == 0, ran.err
    assert f"published {LINE}/weld-defect:1.5.1 {setting.bundle.digest}" in ran.out
    assert "uploading weld-defect:1.5.1" in ran.err
    assert known not in {call.path.rpartition("/")[2] for call in setting.uploads()}
    assert {call.path.rpartition("/")[2]: call.body for call in setting.uploads()} == {
        digest: b"".join(blob.chunks()) for digest, blob in blobs_of(setting.bundle) if digest != known
    }
    (signed,) = setting.published()
    trust = setting.trust
    publish.verify_role(
        root=trust.roots[0], targets=trust.roles["targets"], role=ROLE, data=signed, previous=trust.roles[ROLE], now=NOW
    )
    (release,) = publish.releases(signed)
    assert (release.digest, release.release_seq) == (setting.bundle.digest, 7)


def test_the_release_is_published_only_when_all_blobs_are_there(setting):
    setting.push()
    order = [call.method for call in setting.hub.calls]
    assert order.index("POST") > max(i for i, method in enumerate(order) if method == "PUT")


def test_the_manifest_goes_last(setting):
    setting.push()
    assert setting.uploads()[-1].path.endswith(setting.bundle.digest)


def test_a_push_at_the_same_time_is_signed_along(setting):
    """Another machine published 1.5.0 between our reading of the role and our writing of it."""
    trust, key = setting.trust, keyfile.read_private(setting.key, passphrase=None)
    theirs = publish.add_release(
        trust.roles[ROLE], entry_of(make_bundle("1.5.0", 6)), keys=[key], expires=NOW + publish.LINE_LIFETIME
    )
    race = refusal("SKY-2002", reason="rollback", detail="line-body-shop version 2, expected 3")
    setting.hub.on("GET", ROLE_PATH, trust.roles[ROLE], theirs)
    setting.hub.on("POST", ROLE_PATH, Reply(422, msgspec.json.encode(race)), Reply(201))
    ran = setting.push()
    assert ran.code == 0, ran.err
    assert [release.version for release in publish.releases(setting.published()[-1])] == ["1.5.0", "1.5.1"]


def test_a_hub_that_always_says_race_is_not_asked_for_ever(setting):
    race = refusal("SKY-2002", reason="rollback", detail="line-body-shop version 2, expected 3")
    setting.hub.on("POST", ROLE_PATH, Reply(422, msgspec.json.encode(race)))
    ran = setting.push()
    assert ran.code == 1
    assert len(setting.published()) == 10


def test_no_private_key_is_ever_sent(setting):
    setting.push()
    pem = setting.key.read_bytes()
    secret = keyfile.read_private(setting.key, passphrase=None).private_bytes_raw()
    for call in setting.hub.calls:
        assert b"PRIVATE" not in call.body
        assert pem not in call.body
        assert secret not in call.body
        assert secret.hex().encode() not in call.body


def test_dry_run_sends_nothing(setting):
    ran = setting.push("--dry-run")
    assert ran.code == 0
    assert "would upload 5 blob(s)" in ran.out
    assert {call.method for call in setting.hub.calls} == {"GET", "HEAD"}


def test_pushing_again_is_fine_and_publishes_nothing(setting):
    setting.push()
    (signed,) = setting.published()
    setting.serve(signed)
    ran = setting.push()
    assert ran.code == 0
    assert "already published" in ran.out
    assert len(setting.published()) == 1


def test_another_bundle_under_a_published_version_is_refused_before_any_upload(setting):
    setting.push()
    (signed,) = setting.published()
    setting.serve(signed)
    setting.hub.calls.clear()
    with setting.archive.open("wb") as file:
        write_archive(make_bundle(content=b"other"), file)
    ran = setting.push()
    assert ran.code == 1
    assert "SKY-2002" in ran.err
    assert "exists" in ran.err
    assert setting.uploads() == []


def test_a_release_seq_must_grow(setting):
    setting.push()
    (signed,) = setting.published()
    setting.serve(signed)
    with setting.archive.open("wb") as file:
        write_archive(make_bundle(version="1.6.0", release_seq=7), file)
    assert "rollback" in setting.push().err


def test_a_key_of_another_line_is_refused_before_any_upload(setting, tmp_path):
    other = folder.add_line(setting.keys, "paint", passphrase=None, files=DiskFiles(), now=NOW)
    setting.key = other
    ran = setting.push()
    assert ran.code == 1
    assert "release key of this line" in ran.err
    assert setting.uploads() == setting.published() == []


def test_a_hub_cannot_have_its_own_entries_signed_along(setting):
    """Stolen online keys: the hub slips a release into the role it hands out, hoping the owner signs it with the next one."""
    evil = metadata.parse(Targets, setting.trust.roles[ROLE])
    thief = keyfile.generate()
    entry = publish.releases(
        publish.add_release(setting.trust.roles[ROLE], release_entry(), keys=(thief,), expires=NOW + 10)
    )
    assert entry
    forged = Metadata.from_bytes(
        publish.add_release(setting.trust.roles[ROLE], release_entry(), keys=(thief,), expires=NOW + 10)
    )
    forged.signatures.update(evil.signatures)  # the owner's signature of the honest version
    setting.serve(forged.to_bytes())
    ran = setting.push()
    assert ran.code == 1
    assert "SKY-2002" in ran.err
    assert setting.uploads() == setting.published() == []


def release_entry():
    from skerry.cli.release import entry_of

    return entry_of(make_bundle(version="6.6.6", release_seq=1, content=b"evil"))


def test_a_line_the_catalogue_does_not_have(setting):
    del setting.hub.replies["GET", ROLE_PATH]
    assert "no product line body-shop" in setting.push().err


def test_a_damaged_archive_never_gets_to_the_hub(setting):
    raw = bytearray(setting.archive.read_bytes())
    raw[-3000] ^= 1
    setting.archive.write_bytes(raw)
    assert setting.push().code == 1
    assert setting.hub.calls == []


def test_missing_files(setting, tmp_path):
    assert setting.shell(f"push {tmp_path / 'none.skb'} --key {setting.key}").code == 2
    setting.key = tmp_path / "none.pem"
    assert "SKY-7007" in setting.push().err


def test_json(setting):
    assert json.loads(setting.push("-o", "json").out)["target"] == f"{LINE}/weld-defect/1.5.1.json"


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(setting, tmp_path):
    key = keyfile.read_private(setting.key, passphrase=None)
    setting.key = tmp_path / "locked.pem"
    keyfile.write_private(DiskFiles(), setting.key, key, passphrase="open sesame")
    assert "SKY-2004" in setting.push("--dry-run").err
    setting.shell.environ[VARIABLE] = "open sesame"
    assert setting.push("--dry-run").code == 0
    with pytest.raises(FileExists):
        keyfile.write_private(DiskFiles(), setting.key, key, passphrase="x")


def test_an_archive_cut_while_it_is_sent_is_noticed():
    class Cut(MemoryBlob):
        @property
        def size(self):
            return 10

    with pytest.raises(DownloadBroken):
        list(counted("sha256:x", Cut(b"12345"), lambda _: None))
