# SPDX-License-Identifier: Apache-2.0
"""Uploads to a hub by a thief of a release key, or by a hub that lies: what is refused before anything is served."""

from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets

from skerry.errors import CatalogueRefused
from skerry.trust import ceremony, metadata, publish
from skerry.trust.decision import CatalogueEntry
from skerry.wire.v1.device import target_path
from support.victim import NOW, keys_file, public

DAY = publish.DAY


def entry(version, seq, *, line="vision", model="digits", **changes):
    digest = f"sha256:{sha256(version.encode()).hexdigest()}"
    target = target_path(line, model, version)
    facts = {"target": target, "digest": digest, "size": 10, "line": line, "model": model, "version": version}
    return CatalogueEntry(**{**facts, "release_seq": seq, **changes})


class Organisation:
    def __init__(self):
        self.holders = [Ed25519PrivateKey.generate() for _ in range(3)]
        self.targets_key, self.line_key, self.audio_key, self.online, self.hub = (
            Ed25519PrivateKey.generate() for _ in range(5)
        )
        plan = ceremony.RootPlan(
            root_keys=tuple(map(public, self.holders)),
            root_threshold=2,
            targets_keys=(public(self.targets_key),),
            snapshot_key=public(self.online),
            timestamp_key=public(self.online),
        )
        root = ceremony.make_root(plan, expires=NOW + 100 * DAY)
        self.root = publish.sign_all(root, self.holders[:2])
        lines = [
            publish.Line(name="vision", keys=(public(self.line_key),)),
            publish.Line(name="audio", keys=(public(self.audio_key),)),
        ]
        unsigned = publish.make_targets(lines, keys_file(self.hub), expires=NOW + 100 * DAY)
        self.targets = publish.sign_all(unsigned, (self.targets_key,))
        empty = publish.sign_all(publish.make_line(expires=NOW + 100 * DAY), (self.line_key,))
        self.line = self.add(empty, entry("1.0.0", 1))

    def add(self, role, new, *keys, expires=NOW + 100 * DAY):
        return publish.add_release(role, new, keys=keys or (self.line_key,), expires=expires)

    def forge(self, change, *keys):
        """The line role, next version, changed at will and validly signed."""
        parsed = metadata.parse(Targets, self.line)
        parsed.signed.version += 1
        change(parsed.signed)
        return publish.sign_all(Metadata(parsed.signed).to_bytes(), keys or (self.line_key,))

    def upload(self, data, role="line-vision", previous=None, now=NOW):
        """The reason it is refused for; "" when it is served."""
        try:
            publish.verify_role(
                root=self.root,
                targets=self.targets,
                role=role,
                data=data,
                previous=previous if previous is not None else self.line,
                now=now,
            )
        except CatalogueRefused as error:
            return str(error.fields["reason"])
        return ""


@pytest.fixture
def org():
    return Organisation()


def test_honest_upload_is_served(org):
    assert org.upload(org.add(org.line, entry("1.1.0", 2))) == ""


def test_upload_signed_by_another_lines_key(org):
    assert org.upload(org.add(org.line, entry("1.1.0", 2), org.audio_key)) == "unsigned"


def test_upload_signed_by_the_hub_itself(org):
    assert org.upload(org.add(org.line, entry("1.1.0", 2), org.online, org.hub)) == "unsigned"


def test_upload_without_signature(org):
    data = org.add(org.line, entry("1.1.0", 2))
    document = msgspec.json.decode(data)
    document["signatures"] = []
    assert org.upload(msgspec.json.encode(document)) == "unsigned"


def test_upload_for_a_line_nobody_delegated(org):
    assert org.upload(org.line, role="line-finance") == "unsigned"


def test_upload_of_an_older_role(org):
    newer = org.add(org.line, entry("1.1.0", 2))
    assert org.upload(org.line, previous=newer) == "rollback"


def test_upload_that_skips_versions(org):
    """Running the version up would shut out the honest key holder."""
    assert org.upload(org.forge(lambda signed: setattr(signed, "version", 2**40))) == "rollback"


def test_upload_that_has_expired(org):
    data = org.add(org.line, entry("1.1.0", 2), expires=NOW - 1)
    assert org.upload(data) == "freeze"


def test_upload_that_changes_a_published_bundle(org):
    def swap(signed):
        next(iter(signed.targets.values())).hashes["sha256"] = "0" * 64

    assert org.upload(org.forge(swap)) == "altered"


def test_upload_that_drops_a_published_bundle(org):
    assert org.upload(org.forge(lambda signed: signed.targets.clear())) == "altered"


@pytest.mark.parametrize("seq", [0, 1, -5])
def test_upload_with_a_release_number_that_does_not_grow(org, seq):
    with pytest.raises(CatalogueRefused):
        org.add(org.line, entry("1.1.0", seq))
    other = publish.add_release(
        publish.make_line(expires=NOW), entry("1.1.0", 7), keys=(org.line_key,), expires=NOW + DAY
    )
    smuggled = metadata.parse(Targets, other).signed.targets["vision/digits/1.1.0.json"]
    smuggled.unrecognized_fields["custom"]["release_seq"] = seq
    data = org.forge(lambda signed: signed.targets.update({smuggled.path: smuggled}))
    assert org.upload(data) == "rollback"


def test_upload_of_two_bundles_with_one_release_number(org):
    other = publish.make_line(expires=NOW)
    two = [metadata.parse(Targets, org.add(other, entry(version, 5))).signed.targets for version in ("1.5.0", "1.6.0")]

    def smuggle(signed):
        signed.targets.update({**two[0], **two[1]})

    assert org.upload(org.forge(smuggle)) == "rollback"


def test_upload_into_another_lines_paths(org):
    other = org.add(publish.make_line(expires=NOW), entry("6.6.6", 6, line="audio"))
    foreign = metadata.parse(Targets, other).signed.targets
    assert org.upload(org.forge(lambda signed: signed.targets.update(foreign))) == "wrong-target"


def test_upload_that_delegates_further(org):
    def delegate(signed):
        role = DelegatedRole("evil", [], 1, terminating=False, paths=["vision/*/*"])
        signed.delegations = Delegations(keys={}, roles={"evil": role})
        signed.add_key(CryptoSigner(Ed25519PrivateKey.generate()).public_key, "evil")

    assert org.upload(org.forge(delegate)) == "malformed"


def test_upload_of_targets_that_drop_a_line(org):
    fewer = publish.make_targets(
        [publish.Line(name="vision", keys=(public(org.line_key),))], keys_file(org.hub), expires=NOW + DAY, version=2
    )
    signed = publish.sign_all(fewer, (org.targets_key,))
    assert org.upload(signed, role="targets", previous=org.targets) == "role-dropped"


def test_upload_of_targets_without_assignment_keys(org):
    parsed = metadata.parse(Targets, org.targets)
    parsed.signed.version += 1
    parsed.signed.targets.clear()
    signed = publish.sign_all(Metadata(parsed.signed).to_bytes(), (org.targets_key,))
    assert org.upload(signed, role="targets", previous=org.targets) == "malformed"


def test_upload_of_a_snapshot_as_a_line(org):
    snapshot = publish.make_snapshot(None, {"targets": org.targets}, key=org.line_key, expires=NOW + DAY)
    assert org.upload(snapshot) == "malformed"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "*", "a*", "[ab]", "a?", "a\x00b", "../../x", "x" * 65, "-x", "ä"]
)
def test_names_that_mean_something_else_in_a_path_or_pattern(org, name):
    for field in ("line", "model", "version"):
        facts = {"line": "vision", "model": "digits", "version": "1.0.0", field: name}
        crooked = CatalogueEntry(
            target=target_path(**facts), digest="sha256:" + "0" * 64, size=1, release_seq=9, **facts
        )
        with pytest.raises(CatalogueRefused):
            org.add(org.line, crooked)
    with pytest.raises(CatalogueRefused):
        publish.make_targets([publish.Line(name=name, keys=(public(org.line_key),))], b"{}", expires=NOW)


@pytest.mark.parametrize("threshold", [0, -1, 2])
def test_line_threshold_that_means_nothing(org, threshold):
    line = publish.Line(name="vision", keys=(public(org.line_key),), threshold=threshold)
    with pytest.raises(CatalogueRefused):
        publish.make_targets([line], b"{}", expires=NOW)
    twice = publish.Line(name="vision", keys=(public(org.line_key),) * 2, threshold=2)
    with pytest.raises(CatalogueRefused):
        publish.make_targets([twice], b"{}", expires=NOW)


def test_snapshot_that_would_roll_a_line_back(org):
    newer = org.add(org.line, entry("1.1.0", 2))
    before = publish.make_snapshot(
        None, {"targets": org.targets, "line-vision": newer}, key=org.online, expires=NOW + DAY
    )
    for roles, reason in (
        ({"targets": org.targets, "line-vision": org.line}, "rollback"),
        ({"targets": org.targets}, "role-dropped"),
    ):
        with pytest.raises(CatalogueRefused) as refusal:
            publish.make_snapshot(before, roles, key=org.online, expires=NOW + DAY)
        assert refusal.value.fields["reason"] == reason
