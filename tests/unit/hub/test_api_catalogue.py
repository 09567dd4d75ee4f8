# SPDX-License-Identifier: Apache-2.0
"""Publishing on a real hub in this process: what it serves, what it refuses, and what a crash in between leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sqlite3
from contextlib import closing

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.errors import ConfigError, Conflict
from skerry.hub.app import HubConfig
from skerry.testing.clock import VirtualClock
from skerry.trust import ceremony, metadata, publish
from skerry.trust.keyfile import read_private
from skerry.wire.v1.operator import Role
from support.bundles import bundle
from support.hub_world import LINE, NOW, make_trust, play

DAY = 86_400.0
BEFORE = int(NOW) - 1
ROLE = f"catalogue/roles/line-{LINE}"


async def served(world, name):
    reply = await world.client.get(f"/device/v1/catalogue/{name}")
    return reply.json() if reply.status_code == 200 else None


async def versions(world):
    """Of timestamp, snapshot and the line. The first two follow the time: counted from when the clock of these tests starts."""
    timestamp = await served(world, "timestamp.json")
    number = timestamp["signed"]["meta"]["snapshot.json"]["version"]
    snapshot = await served(world, f"{number}.snapshot.json")
    line = snapshot["signed"]["meta"][f"line-{LINE}.json"]["version"]
    return timestamp["signed"]["version"] - BEFORE, number - BEFORE, line


async def models(world):
    return [item["bundle"]["version"] for item in (await world.call("GET", "models")).json()["items"]]


def test_first_start_serves_root_targets_and_the_assignment_keys(hub):
    async def scene(world):
        assert await versions(world) == (1, 1, 1)
        for name in ("1.root.json", "1.targets.json", f"1.line-{LINE}.json"):
            reply = await world.client.get(f"/device/v1/catalogue/{name}")
            assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        fresh = await world.client.get("/device/v1/catalogue/timestamp.json")
        assert fresh.headers["cache-control"] == "no-cache"
        for absent in ("2.root.json", "root.json", "targets.json", "0.root.json", "1.timestamp.json", "1.line-x.json"):
            assert await served(world, absent) is None

    hub(scene)


def test_a_restart_signs_anew_and_changes_nothing_else(hub):
    async def first(world):
        assert await versions(world) == (1, 1, 1)

    async def again(world):
        assert await versions(world) == (2, 2, 1)
        assert not await world.hub.catalogue.refresh()

    hub(first)
    hub(again)


def test_devices_that_saw_more_than_a_backup_holds_still_take_the_catalogue(hub, tmp_path, monkeypatch):
    """Versions count on from the backup; a device never takes one below what it has seen."""
    seen = []

    async def backed_up(world):
        with (
            closing(sqlite3.connect(tmp_path / "hub.sqlite")) as live,
            closing(sqlite3.connect(tmp_path / "backup")) as to,
        ):
            live.backup(to)
        for _ in range(3):
            world.clock.advance(7 * DAY)
            await world.hub.catalogue.refresh()  # the hub's own round may have been there first
        seen.extend(await versions(world))

    async def restored(world):
        restored_versions = await versions(world)
        assert all(after > before for after, before in zip(restored_versions[:2], seen[:2], strict=True))

    hub(backed_up)
    for leftover in tmp_path.glob("hub.sqlite*"):
        leftover.unlink()
    shutil.move(tmp_path / "backup", tmp_path / "hub.sqlite")
    monkeypatch.setattr(VirtualClock, "now", lambda clock: clock._now + 22 * DAY)
    hub(restored)


def test_a_published_bundle_is_served_listed_and_can_be_published_again_without_harm(hub):
    async def scene(world):
        made = bundle()
        entry = await world.publish(made)
        assert await versions(world) == (2, 2, 2)
        path = publish.target_file_name(entry.target, entry.digest)
        target = await world.client.get(f"/device/v1/catalogue/targets/{path}")
        assert (target.content, target.headers["content-type"]) == (made.manifest.data, "application/octet-stream")
        item = (await world.call("GET", "models/vision/digits")).json()["items"][0]
        assert (item["bundle"]["digest"], item["variants"]) == (made.digest, ["fp32", "int8"])
        assert item["size"] == made.size + len(made.manifest.data)
        again = (await world.call("GET", ROLE)).content
        assert (await world.call("POST", ROLE, content=again)).status_code == 204
        assert await versions(world) == (2, 2, 2)
        assert await models(world) == ["1.0.0"]

    hub(scene)


def test_nothing_is_published_while_a_blob_is_missing(hub):
    async def scene(world):
        made = bundle()
        role = await world.signed_release(world.entry(made))
        for missing in (made.digest, *(blob.digest for blob in made.manifest.blobs)):
            await world.upload(made, leave_out=missing)
            if missing == made.digest:
                refused = await world.call("POST", ROLE, content=role)
                assert (refused.status_code, refused.json()["code"]) == (400, "SKY-5001")
                assert missing in refused.json()["message"]
                assert await versions(world) == (1, 1, 1)
                assert await models(world) == []
        assert (await world.call("POST", ROLE, content=role)).status_code == 204

    hub(scene)


def test_a_missing_layer_is_named(hub):
    async def scene(world):
        made = bundle()
        missing = made.manifest.files[0].digest
        await world.upload(made, leave_out=missing)
        refused = await world.call("POST", ROLE, content=await world.signed_release(world.entry(made)))
        assert refused.status_code == 400
        assert missing in refused.json()["message"]
        assert await versions(world) == (1, 1, 1)

    hub(scene)


def test_a_catalogue_entry_that_lies_about_its_bundle_is_refused(hub):
    async def scene(world):
        made = bundle()
        await world.upload(made)
        lies = [
            world.entry(made, version="9.9.9", target="vision/digits/9.9.9.json"),
            world.entry(made, release_seq=7),
            world.entry(made, size=len(made.manifest.data) + 1),
        ]
        for lie in lies:
            refused = await world.call("POST", ROLE, content=await world.signed_release(lie))
            assert (refused.status_code, refused.json()["code"]) == (422, "SKY-1003")
        assert await versions(world) == (1, 1, 1)

    hub(scene)


def test_a_target_that_is_not_a_bundle_is_refused(hub):
    async def scene(world):
        made = bundle()
        await world.upload(made)
        model = made.manifest.files[0]
        refused = await world.call(
            "POST", ROLE, content=await world.signed_release(world.entry(made, digest=model.digest, size=model.size))
        )
        assert refused.json()["code"] == "SKY-1003"

    hub(scene)


def test_stolen_operator_token_publishes_nothing_without_the_release_key(hub):
    async def scene(world):
        made, operator = bundle(), await world.user(Role.OPERATOR)
        await world.upload(made)
        forged = await world.signed_release(world.entry(made), key=Ed25519PrivateKey.generate())
        refused = await world.call("POST", ROLE, token=operator, content=forged)
        assert (refused.status_code, refused.json()["fields"]["reason"]) == (422, "unsigned")
        online = read_private(world.keys / "online" / "snapshot.pem", passphrase=None, allow_plain=True)
        forged = await world.signed_release(world.entry(made), key=online)
        assert (await world.call("POST", ROLE, content=forged)).json()["fields"]["reason"] == "unsigned"
        assert await models(world) == []

    hub(scene)


def test_old_skipped_altered_and_foreign_roles_are_refused(hub):
    async def scene(world):
        first = (await world.call("GET", ROLE)).content
        await world.publish(bundle())
        key = read_private(world.keys / f"line-{LINE}.pem", passphrase=None, allow_plain=True)
        current = json.loads((await world.call("GET", ROLE)).content)
        skipped = json.loads(json.dumps(current))
        skipped["signed"]["version"] += 2
        emptied = json.loads(json.dumps(current))
        emptied["signed"]["version"] += 1
        emptied["signed"]["targets"] = {}

        def signed(document):
            return publish.sign_all(json.dumps({**document, "signatures": []}).encode(), (key,))

        for data, reason in ((first, "rollback"), (signed(skipped), "rollback"), (signed(emptied), "altered")):
            refused = await world.call("POST", ROLE, content=data)
            assert refused.json()["fields"]["reason"] == reason
        assert (await world.call("POST", "catalogue/roles/line-other", content=first)).status_code in {404, 422}
        for name in ("root", "snapshot", "timestamp", "..%2fline-vision", "line-", "LINE-vision"):
            assert (await world.call("POST", f"catalogue/roles/{name}", content=first)).status_code == 404
        assert (await versions(world))[2] == 2

    hub(scene)


def test_publishers_at_once_all_get_through_or_are_told(hub):
    async def scene(world):
        made = bundle()
        await world.upload(made)
        role = await world.signed_release(world.entry(made))
        replies = await asyncio.gather(*(world.call("POST", ROLE, content=role) for _ in range(4)))
        assert {reply.status_code for reply in replies} == {204}
        assert (await versions(world))[1:] == (2, 2)
        assert await models(world) == ["1.0.0"]

    hub(scene)


def test_a_hub_killed_between_catalogue_and_record_makes_it_good_on_start(hub):
    admin = []

    async def killed(world):
        admin.append(world.admin)
        made = bundle()
        await world.upload(made)
        put_bundle = world.hub.store.put_bundle

        async def dies(_record):
            raise KeyError("killed here")

        world.hub.store.put_bundle = dies
        reply = await world.call("POST", ROLE, content=await world.signed_release(world.entry(made)))
        assert reply.status_code == 500
        world.hub.store.put_bundle = put_bundle
        assert (await versions(world))[2] == 2
        assert await models(world) == []

    async def again(world):
        world.admin = admin[0]
        assert await models(world) == ["1.0.0"]
        device = await world.device()
        assert (await device.call("HEAD", f"blobs/{bundle().digest}")).status_code == 200

    hub(killed)
    hub(again)


def test_what_a_clock_signed_that_was_years_ahead_is_signed_anew(hub):
    """Else it would pass as fresh for years, whoever served it."""

    async def scene(world):
        world.clock.jump(10 * 365 * 86_400)
        assert await world.hub.catalogue.refresh()
        world.clock.jump(-10 * 365 * 86_400)
        await world.hub.catalogue.refresh()  # the hub's own round may have been there first
        assert not await world.hub.catalogue.refresh()
        for name, life in (("timestamp", publish.TIMESTAMP_LIFETIME), ("snapshot", publish.SNAPSHOT_LIFETIME)):
            served = await world.hub.catalogue._newest(f"{name}.json")
            assert metadata.expires_of(served) == pytest.approx(world.clock.now() + life, abs=2)

    hub(scene)


def test_timestamp_and_snapshot_are_signed_anew_at_half_of_their_lives(hub):
    async def scene(world):
        first = await versions(world)
        assert not await world.hub.catalogue.refresh()
        world.clock.advance(DAY / 2 - 60)
        assert not await world.hub.catalogue.refresh()
        world.clock.advance(120)
        assert await world.hub.catalogue.refresh()
        second = await versions(world)
        assert (second[0] > first[0], second[1] == first[1]) == (True, True)
        world.clock.advance(3 * DAY)
        assert await world.hub.catalogue.refresh()
        third = await versions(world)
        assert (third[0] > second[0], third[1] > second[1]) == (True, True)
        fresh = (await world.client.get("/device/v1/catalogue/timestamp.json")).content
        assert metadata.expires_of(fresh) - world.clock.now() >= DAY - 1

    hub(scene)


def test_the_next_root_needs_both_thresholds_and_the_keys_in_use(hub):
    async def scene(world):
        root = (await world.client.get("/device/v1/catalogue/1.root.json")).content
        key = read_private(world.keys / "root-1.pem", passphrase=None, allow_plain=True)
        expires = world.clock.now() + publish.ROOT_LIFETIME
        plan = ceremony.plan_of(root)
        unsigned = ceremony.next_root(root, plan, expires=expires)
        stranger = Ed25519PrivateKey.generate()
        other_online = msgspec.structs.replace(plan, timestamp_key=stranger.public_key().public_bytes_raw())
        for wrong in (
            unsigned,
            publish.sign_all(unsigned, (stranger,)),
            publish.sign_all(ceremony.next_root(root, other_online, expires=expires), (key,)),
            publish.sign_all(ceremony.next_root(root, plan, expires=world.clock.now() - 1), (key,)),
        ):
            assert (await world.call("POST", "catalogue/root", content=wrong)).json()["code"] == "SKY-2002"
        assert await served(world, "2.root.json") is None
        good = publish.sign_all(unsigned, (key,))
        for _ in range(2):
            assert (await world.call("POST", "catalogue/root", content=good)).status_code == 204
        assert (await served(world, "2.root.json"))["signed"]["version"] == 2
        enrolled = await world.try_enrol(token=await world.enrolment_token())
        assert json.loads(base64.b64decode(enrolled.json()["factory_root"]))["signed"]["version"] == 2

    hub(scene)


def test_a_data_folder_of_another_trust_folder_is_refused(hub, tmp_path, tmp_path_factory):
    async def scene(world):
        assert await versions(world) == (1, 1, 1)

    hub(scene)
    other = make_trust(tmp_path_factory.mktemp("other"))
    with pytest.raises(Conflict, match="another trust folder"):
        play(scene, tmp_path, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "0.0.0.0"},
        {"tls_cert": "cert.pem"},
        {"poll_seconds": 0},
        {"controller_seconds": -1},
    ],
)
def test_configurations_that_are_not_safe_or_cannot_work_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError):
        HubConfig(data=tmp_path, trust=tmp_path, **wrong).check()
