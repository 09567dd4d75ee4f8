# SPDX-License-Identifier: Apache-2.0
"""The ceremony as people do it: one command line after another, each holder with one key file."""

import json

import pytest

from skerry.cli.passphrase import VARIABLE
from skerry.effects.disk import DiskFiles
from skerry.errors import CatalogueRefused
from skerry.trust import ceremony, metadata, publish
from skerry.trust.online import OnlineTrust
from unit.cli.scripted import NOW


def load(folder, passphrase=None):
    return OnlineTrust.load(folder / "online", passphrase=passphrase, files=DiskFiles(), now=NOW)


def ok(ran):
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture
def demo(shell, tmp_path):
    ok(shell(f"keys init --dir {tmp_path}/keys --line vision --demo"))
    return tmp_path / "keys"


def test_demo_trust_says_so_loudly(shell, tmp_path):
    ran = ok(shell(f"keys init --dir {tmp_path}/keys --line vision --line audio --demo"))
    assert "DEMO TRUST" in ran.err
    trust = load(tmp_path / "keys")
    assert trust.demo
    assert trust.lines == ("vision", "audio")
    assert "DEMO" in ok(shell(f"keys show {tmp_path}/keys")).out


def test_real_trust_needs_a_passphrase(shell, tmp_path):
    ran = shell(f"keys init --dir {tmp_path}/keys --line vision")
    assert ran.code == 1
    assert "SKY-2004" in ran.err
    assert not (tmp_path / "keys").exists()


def test_real_trust_is_two_of_three_and_encrypted(shell, tmp_path):
    shell.environ[VARIABLE] = "offline"
    shell.environ["SKERRY_ONLINE_KEY_PASSPHRASE"] = "online"
    ran = ok(shell(f"keys init --dir {tmp_path}/keys --line vision"))
    assert "2 of 3" in ran.out
    assert "DEMO" not in ran.out + ran.err
    assert not load(tmp_path / "keys", "online").demo
    for path in (tmp_path / "keys").rglob("*.pem"):
        assert b"ENCRYPTED" in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


def test_dry_runs_write_nothing(shell, tmp_path, demo):
    before = sorted(tmp_path.rglob("*"))
    root = demo / "online" / "metadata" / "1.root.json"
    content = root.read_bytes()
    for line in (
        f"keys init --dir {tmp_path}/other --line vision --dry-run",
        f"keys new {tmp_path}/alice --dry-run",
        f"keys add-line audio --dir {demo} --dry-run",
        f"keys renew --dir {demo} --dry-run",
        f"keys root sign {root} --key {demo}/root-1.pem --dry-run",
        f"keys root rotate {root} --out {tmp_path}/2.json --dry-run",
        f"keys root adopt {root} --dir {demo} --dry-run",
    ):
        assert "would" in ok(shell(line)).out
    assert sorted(tmp_path.rglob("*")) == before
    assert root.read_bytes() == content


def test_nothing_is_overwritten(shell, demo):
    assert shell(f"keys init --dir {demo} --line vision --demo").code != 0
    assert shell(f"keys new {demo}/targets --plain").code != 0


def test_ceremony_of_three_holders(shell, tmp_path):
    for name in ("alice", "bob", "carol"):
        shell.environ[VARIABLE] = name
        ok(shell(f"keys new {tmp_path}/{name}"))
    holders = " ".join(f"--root-key {tmp_path}/{name}.pub" for name in ("alice", "bob", "carol"))
    shell.environ[VARIABLE] = "organisation"
    made = ok(shell(f"keys init --dir {tmp_path}/keys --line vision {holders}"))
    assert "2 holder(s)" in made.err
    assert not list((tmp_path / "keys").glob("root-*"))
    root = tmp_path / "keys" / "online" / "metadata" / "1.root.json"
    assert shell(f"keys root verify {root}").code == 1
    for name in ("alice", "carol"):
        shell.environ[VARIABLE] = name
        ok(shell(f"keys root sign {root} --key {tmp_path}/{name}.pem"))
    assert "complete" in ok(shell(f"keys root verify {root}")).out
    assert load(tmp_path / "keys", "organisation").lines == ("vision",)


def test_only_root_keys_may_sign(shell, demo):
    root = demo / "online" / "metadata" / "1.root.json"
    before = root.read_bytes()
    ran = shell(f"keys root sign {root} --key {demo}/targets.pem")
    assert ran.code == 1
    assert "not a root key" in ran.err
    assert root.read_bytes() == before


def test_holder_replaced(shell, tmp_path, demo):
    ok(shell(f"keys new {tmp_path}/new --plain"))
    first, second = demo / "online" / "metadata" / "1.root.json", tmp_path / "2.root.json"
    change = f"--add-key {tmp_path}/new.pub --remove-key {demo}/root-1.pub"
    ok(shell(f"keys root rotate {first} --out {second} {change}"))
    ok(shell(f"keys root sign {second} --previous {first} --key {tmp_path}/new.pem"))
    assert shell(f"keys root verify {second} --previous {first}").code == 1
    assert shell(f"keys root adopt {second} --dir {demo}").code == 1
    ok(shell(f"keys root sign {second} --previous {first} --key {demo}/root-1.pem"))
    ok(shell(f"keys root verify {second} --previous {first}"))
    ok(shell(f"keys root adopt {second} --dir {demo}"))
    trust = load(demo)
    assert [metadata.version_of(root) for root in trust.roots] == [1, 2]
    assert ceremony.plan_of(trust.roots[1]).root_keys != ceremony.plan_of(trust.roots[0]).root_keys


def test_first_root_from_public_keys_alone(shell, tmp_path, demo):
    for name in ("a", "b"):
        ok(shell(f"keys new {tmp_path}/{name} --plain"))
    out = tmp_path / "root.json"
    online = demo / "online"
    rest = (
        f"--targets-key {demo}/targets.pub --snapshot-key {online}/snapshot.pub --timestamp-key {online}/timestamp.pub"
    )
    keys = f"--key {tmp_path}/a.pub --key {tmp_path}/b.pub"
    assert shell(f"keys root create {out} --threshold 3 {keys} {rest}").code == 1
    ok(shell(f"keys root create {out} --threshold 2 {keys} {rest}"))
    assert ceremony.root_status(out.read_bytes()).missing == 2


def test_line_added_and_targets_renewed(shell, demo):
    ok(shell(f"keys add-line audio --dir {demo}"))
    shell.clock.advance(86_400.0)
    ok(shell(f"keys renew --dir {demo}"))
    trust = load(demo)
    assert trust.lines == ("vision", "audio")
    assert metadata.version_of(trust.roles["targets"]) == 3
    assert metadata.expires_of(trust.roles["targets"]) == NOW + 86_400.0 + publish.TARGETS_LIFETIME


def test_assignment_key_replaced(shell, demo):
    before = load(demo)
    ok(shell(f"keys replace-assignment-key --dir {demo} --dry-run"))
    assert load(demo).assignment_keyid == before.assignment_keyid
    ok(shell(f"keys replace-assignment-key --dir {demo}"))
    after = load(demo)
    assert after.assignment_keyid != before.assignment_keyid
    assert before.assignment_keyid.encode() not in b"".join(after.targets.values())
    assert metadata.version_of(after.roles["targets"]) == 2


def test_stolen_targets_key_replaced(shell, demo):
    for suffix in ("pem", "pub"):
        (demo / f"targets.{suffix}").rename(demo / f"old.{suffix}")
    ok(shell(f"keys new {demo}/targets --plain"))
    first, second = demo / "online" / "metadata" / "1.root.json", demo / "2.root.json"
    ok(shell(f"keys root rotate {first} --out {second} --targets-key {demo}/targets.pub"))
    ok(shell(f"keys root sign {second} --previous {first} --key {demo}/root-1.pem"))
    ok(shell(f"keys root adopt {second} --dir {demo}"))
    with pytest.raises(CatalogueRefused):
        load(demo)
    ok(shell(f"keys renew --dir {demo}"))
    assert load(demo).lines == ("vision",)


def test_line_renewed_on_the_hub(shell, demo):
    trust = load(demo)
    path = "/api/v1/catalogue/roles/line-vision"
    shell.hub.on("GET", path, trust.roles["line-vision"]).on("POST", path, status=201)
    shell.hub.on("GET", "/api/v1/catalogue/roles/targets", trust.roles["targets"])
    shell.clock.advance(86_400.0)
    ok(shell(f"keys renew-line vision --key {demo}/line-vision.pem --dry-run"))
    assert not shell.hub.sent("POST", path)
    ok(shell(f"keys renew-line vision --key {demo}/line-vision.pem"))
    (sent,) = shell.hub.sent("POST", path)
    assert metadata.version_of(sent.body) == 2
    publish.verify_role(
        root=trust.roots[0],
        targets=trust.roles["targets"],
        role="line-vision",
        data=sent.body,
        previous=trust.roles["line-vision"],
        now=NOW,
    )
    assert shell(f"keys renew-line vision --key {demo}/targets.pem").code == 1


def test_line_whose_key_was_made_before_a_crash_gets_that_key(shell, demo):
    ok(shell(f"keys new {demo}/line-audio --plain"))
    key = (demo / "line-audio.pem").read_bytes()
    ok(shell(f"keys add-line audio --dir {demo}"))
    assert (demo / "line-audio.pem").read_bytes() == key
    assert load(demo).lines == ("vision", "audio")
    assert shell(f"keys add-line audio --dir {demo}").code != 0


def test_holder_sees_every_key_a_root_names_before_signing_it(shell, tmp_path, demo):
    """Whoever runs the ceremony could name a key of their own instead of a holder's: the names are what is compared."""
    root = demo / "online" / "metadata" / "1.root.json"
    shown = json.loads(ok(shell(f"keys show {root} -o json")).out)

    def named(path):
        return json.loads(ok(shell(f"keys show {path} -o json")).out)["key_id"]

    assert shown["root_keys"] == shown["signed_by"] == [named(demo / "root-1.pub")]
    assert shown["targets_keys"] == [named(demo / "targets.pub")]
    assert shown["snapshot_key"] == named(demo / "online" / "snapshot.pub")
    assert shown["timestamp_key"] == named(demo / "online" / "timestamp.pub")
    second = tmp_path / "2.root.json"
    ok(shell(f"keys new {tmp_path}/eve --plain"))
    ok(shell(f"keys root rotate {root} --out {second} --add-key {tmp_path}/eve.pub"))
    table = ok(shell(f"keys show {second}")).out
    assert f"root keys 2: {named(tmp_path / 'eve.pub')}" in " ".join(table.split())
    assert "signed by" not in table


def test_show_never_asks_and_never_tells(shell, tmp_path, demo):
    secret = (demo / "root-1.pem").read_text().splitlines()[1]
    for path in (demo, demo / "root-1.pub", demo / "root-1.pem", demo / "online" / "metadata" / "1.root.json"):
        ran = ok(shell(f"keys show {path} -o json"))
        assert json.loads(ran.out)
        assert secret not in ran.out
    assert shell(f"keys show {tmp_path}/none").code != 0
