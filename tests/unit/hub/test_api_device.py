# SPDX-License-Identifier: Apache-2.0
"""The device API on a real hub in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sqlite3
from contextlib import closing

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.hub.domain.devices import DesiredWorkload
from skerry.trust.assignment import Accepted, Refused, decide_assignment
from skerry.trust.chain import next_entry
from skerry.trust.floors import Floors, raise_assignment
from skerry.wire.v1.device import AssignmentKeys, BundleRef
from skerry.wire.v1.report import HistoryEntry
from support.bundles import bundle
from support.hub_world import CAPABILITIES, NOW, b64, b64url

LIFE = 7 * 86_400.0
UNSIGNED = b64url(b'{"alg":"none"}')


def ref(version="1.0.0"):
    return BundleRef(
        line="vision",
        model="digits",
        version=version,
        digest="sha256:" + "a" * 64,
        release_seq=1,
        target=f"vision/digits/{version}.json",
    )


def desire(world, device, version="1.0.0"):
    return world.hub.store.set_desired(device.id, "sorter", DesiredWorkload(workload="sorter", bundle=ref(version)))


# --- enrolment -----------------------------------------------------------------------------------------------------------


def test_enrolment_gives_identity_bootstrap_and_audience(hub):
    async def scene(world):
        reply = await world.try_enrol(token=await world.enrolment_token(labels={"site": "north"}), labels={"site": "x"})
        body = reply.json()
        assert reply.status_code == 201
        root = json.loads(base64.b64decode(body["factory_root"]))
        assert root["signed"]["_type"] == "root"
        view = (await world.call("GET", f"devices/{body['device_id']}")).json()
        assert view["labels"] == {"site": "north"}
        assert view["name"] == "cam"

    hub(scene)


def test_an_enrolment_token_is_good_for_one_device(hub):
    async def scene(world):
        token = await world.enrolment_token()
        replies = await asyncio.gather(*(world.try_enrol(token=token) for _ in range(5)))
        assert sorted(reply.status_code for reply in replies) == [201, 403, 403, 403, 403]
        assert {reply.json()["code"] for reply in replies if reply.status_code == 403} == {"SKY-5006"}
        assert len((await world.call("GET", "devices")).json()["items"]) == 1

    hub(scene)


def test_an_enrolment_whose_answer_was_lost_can_be_repeated_while_the_token_lives(hub):
    async def scene(world):
        mine = {"token": await world.enrolment_token(ttl_seconds=60), "public_key": b64(b"k" * 32)}
        replies = await asyncio.gather(*(world.try_enrol(**mine, name=f"cam-{n}") for n in range(4)))
        assert {reply.status_code for reply in replies} == {201}
        assert len({reply.text for reply in replies}) == 1
        assert len((await world.call("GET", "devices")).json()["items"]) == 1
        world.clock.advance(61)
        assert (await world.try_enrol(**mine)).json()["code"] == "SKY-5006"

    hub(scene)


@pytest.mark.parametrize("change", ["another-key", "another-token", "revoked", "deleted"])
def test_a_repeated_enrolment_that_is_none_is_refused(hub, change):
    async def scene(world):
        mine = {"token": await world.enrolment_token(), "public_key": b64(b"k" * 32)}
        device_id = (await world.try_enrol(**mine)).json()["device_id"]
        if change == "another-key":
            mine["public_key"] = b64(b"j" * 32)
        elif change == "another-token":
            mine["token"] = "ske_unknown"
        elif change == "revoked":
            assert (await world.call("POST", f"devices/{device_id}/revoke")).status_code == 200
        else:
            assert (await world.call("DELETE", f"devices/{device_id}")).status_code == 204
        refused = await world.try_enrol(**mine)
        assert (refused.status_code, refused.json()["code"]) == (403, "SKY-5006")

    hub(scene)


def test_an_expired_or_unknown_enrolment_token_is_refused_and_the_attempt_recorded(hub):
    async def scene(world):
        token = await world.enrolment_token(ttl_seconds=60)
        world.clock.advance(61)
        for refused in (token, "ske_never", ""):
            assert (await world.try_enrol(token=refused)).json()["code"] == "SKY-5006"
        refusals = [entry for entry in await world.audit() if entry["action"] == "enrol"]
        assert [entry["outcome"] for entry in refusals] == ["SKY-5006"] * 3

    hub(scene)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": "../../etc"},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"public_key": b64(b"short")},
        {"public_key": b64(bytes(32))},
        {"public_key": "not base64!"},
        {"labels": {"a=b": "c"}},
        {"labels": {"a": "b,c"}},
        {"labels": {f"k{n}": "" for n in range(65)}},
    ],
)
def test_a_malformed_enrolment_does_not_use_up_the_token(hub, change):
    async def scene(world):
        token = await world.enrolment_token()
        refused = await world.try_enrol(**{"token": token, **change})
        assert (refused.status_code, refused.json()["code"]) == (400, "SKY-5001")
        assert (await world.try_enrol(token=token)).status_code == 201

    hub(scene)


# --- tokens --------------------------------------------------------------------------------------------------------------


def test_a_replayed_assertion_is_refused_also_by_another_replica(hub):
    async def scene(world):
        device = await world.device()
        once = device.assertion()
        assert (await device.ask_token(once)).status_code == 200
        assert (await device.ask_token(once)).json()["code"] == "SKY-5002"
        stored.append(once)
        stored.append(device)

    async def after_restart(world):
        device = stored[1]
        device.world = world
        assert (await device.ask_token(stored[0])).status_code == 401
        assert (await device.ask_token()).status_code == 200

    stored: list = []
    hub(scene)
    hub(after_restart)


def test_an_empty_nonce_is_no_nonce(hub):
    async def scene(world):
        device = await world.device()
        assert (await device.ask_token(device.assertion(jti=""))).status_code == 401

    hub(scene)


def test_forged_assertions_are_refused_in_the_same_words(hub):
    async def scene(world):
        device, other = await world.device("one"), await world.device("two")
        stranger = Ed25519PrivateKey.generate()
        own, device.key = device.key, stranger
        wrong_key = device.assertion()
        device.key = own
        claims = {
            "iss": device.id,
            "sub": device.id,
            "aud": device.audience,
            "exp": NOW + 9,
            "iat": NOW,
            "jti": "a" * 16,
        }
        unsigned = f"{UNSIGNED}.{b64url(json.dumps(claims).encode())}."
        forged = [
            wrong_key,
            unsigned,
            device.assertion(sub=other.id),
            device.assertion(iss=other.id, sub=other.id),
            device.assertion(iss="d-unknown", sub="d-unknown"),
            device.assertion(aud="https://another.hub"),
            device.assertion(exp=NOW + 86_400),
            "rubbish",
        ]
        replies = [await device.ask_token(assertion) for assertion in forged]
        assert {reply.status_code for reply in replies} == {401}
        assert len({reply.text for reply in replies}) == 1

    hub(scene)


@pytest.mark.parametrize("change", [{"grant_type": "password"}, {"client_assertion_type": "urn:other"}])
def test_only_the_form_of_rfc_7523_is_taken(hub, change):
    async def scene(world):
        device = await world.device()
        assert (await device.ask_token(**change)).json()["code"] == "SKY-5001"

    hub(scene)


def test_access_tokens_end_after_fifteen_minutes(hub):
    async def scene(world):
        device = await world.device()
        world.clock.advance(899)
        assert (await device.call("GET", "assignment")).status_code == 200
        world.clock.advance(2)
        refused = await device.call("GET", "assignment")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")

    hub(scene)


def test_tokens_of_one_api_do_not_open_the_other(hub):
    async def scene(world):
        device = await world.device()
        assert (await world.call("GET", "devices", token=device.access)).status_code == 401
        device.access = world.admin
        assert (await device.call("GET", "assignment")).status_code == 401

    hub(scene)


def test_revocation_works_at_once_on_every_route(hub):
    async def scene(world):
        device = await world.device()
        assert (await world.call("POST", f"devices/{device.id}/revoke")).json()["revoked"] is True
        assert (await device.call("GET", "assignment")).status_code == 401
        assert (await device.report()).status_code == 401
        assert (await device.call("GET", f"blobs/sha256:{'a' * 64}")).status_code == 401
        assert (await device.ask_token()).status_code == 401

    hub(scene)


# --- assignment ----------------------------------------------------------------------------------------------------------


async def decided(world, device, reply, floors):
    keys = world.hub.catalogue._trust.targets["hub/assignment-keys.json"]
    return decide_assignment(
        reply.content,
        keys=msgspec.json.decode(keys, type=AssignmentKeys),
        device_id=device.id,
        floors=floors,
        now=world.clock.now(),
    )


async def accepted(world, device, reply):
    decision = await decided(world, device, reply, Floors())
    assert isinstance(decision, Accepted), decision
    return decision.assignment


def test_assignment_is_what_the_device_itself_accepts(hub):
    async def scene(world):
        device = await world.device()
        first = await accepted(world, device, await device.call("GET", "assignment"))
        assert (first.sequence, first.workloads) == (NOW, ())
        await desire(world, device)
        second = await accepted(world, device, await device.call("GET", "assignment"))
        assert second.sequence == NOW + 1, "in the same second"
        assert second.workloads[0].bundle == ref()
        assert second.expires == NOW + LIFE

    hub(scene)


def test_unchanged_assignment_is_a_304_across_restarts(hub):
    tags = []

    async def scene(world):
        device = await world.device()
        reply = await device.call("GET", "assignment")
        tags.extend([device, reply.headers["etag"]])
        again = await device.call("GET", "assignment", headers={"if-none-match": reply.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", reply.headers["etag"])

    async def later(world):
        device, tag = tags
        device.world = world
        await device.login()
        assert (await device.call("GET", "assignment", headers={"if-none-match": tag})).status_code == 304
        await desire(world, device)
        assert (await device.call("GET", "assignment", headers={"if-none-match": tag})).status_code == 200

    hub(scene)
    hub(later)


def test_assignment_is_issued_anew_when_half_of_its_life_is_gone(hub):
    async def scene(world):
        device = await world.device()
        tag = (await device.call("GET", "assignment")).headers["etag"]
        world.clock.advance(LIFE / 2 - 10)
        await device.login()
        assert (await device.call("GET", "assignment", headers={"if-none-match": tag})).status_code == 304
        world.clock.advance(20)
        reply = await device.call("GET", "assignment", headers={"if-none-match": tag})
        fresh = await accepted(world, device, reply)
        assert (fresh.sequence, fresh.expires) == (world.clock.now(), world.clock.now() + LIFE)

    hub(scene)


def test_long_poll_wakes_when_the_desired_state_changes(hub):
    async def scene(world):
        device = await world.device()
        tag = (await device.call("GET", "assignment")).headers["etag"]
        poll = asyncio.create_task(device.call("GET", "assignment?wait=50", headers={"if-none-match": tag}))
        while not world.hub.store._db.wakeups._waiting:
            await asyncio.wait({poll}, timeout=0.01)
            assert not poll.done()
        began = asyncio.get_running_loop().time()
        await desire(world, device)
        reply = await poll
        assert asyncio.get_running_loop().time() - began < 1.0
        assert (await accepted(world, device, reply)).workloads[0].name == "sorter"

    hub(scene)


def test_long_poll_ends_unchanged_after_its_time_and_refused_after_revocation(hub):
    async def scene(world):
        device = await world.device()
        tag = {"if-none-match": (await device.call("GET", "assignment")).headers["etag"]}
        assert (await device.call("GET", "assignment?wait=0.05", headers=tag)).status_code == 304
        poll = asyncio.create_task(device.call("GET", "assignment?wait=50", headers=tag))
        while not world.hub.store._db.wakeups._waiting:
            await asyncio.wait({poll}, timeout=0.01)
        await world.call("POST", f"devices/{device.id}/revoke")
        assert (await poll).status_code == 401

    hub(scene)


def test_stopping_hub_ends_long_polls(hub):
    async def scene(world):
        device = await world.device()
        tag = {"if-none-match": (await device.call("GET", "assignment")).headers["etag"]}
        poll = asyncio.create_task(device.call("GET", "assignment?wait=50", headers=tag))
        while not world.hub.store._db.wakeups._waiting:
            await asyncio.wait({poll}, timeout=0.01)
        world.hub.assignments.stop_waiting()
        assert (await asyncio.wait_for(poll, 5)).status_code == 304

    hub(scene)


@pytest.mark.parametrize("wait", ["-1", "nan", "x"])
def test_odd_waits_are_refused(hub, wait):
    async def scene(world):
        device = await world.device()
        assert (await device.call("GET", f"assignment?wait={wait}")).status_code == 400

    hub(scene)


def test_a_hub_put_back_from_a_backup_is_followed_again(hub, tmp_path):
    """The device holds more than the hub remembers, and of the next number the hub would count to, too."""
    kept = []

    async def backed_up(world):
        device = await world.device()
        await accepted(world, device, await device.call("GET", "assignment"))
        with (
            closing(sqlite3.connect(tmp_path / "hub.sqlite")) as live,
            closing(sqlite3.connect(tmp_path / "backup")) as to,
        ):
            live.backup(to)
        world.clock.advance(60)
        await desire(world, device)
        kept.extend([device, await decided(world, device, await device.call("GET", "assignment"), Floors())])

    async def restored(world):
        device, held = kept
        device.world = world
        world.clock.advance(3600)
        await device.login()
        floors = raise_assignment(Floors(), sequence=held.assignment.sequence, digest=held.digest, keys=held.keys)
        refused = await decided(world, device, await device.call("GET", "assignment"), floors)
        assert isinstance(refused, Refused)
        report = {"type": "device", "capabilities": CAPABILITIES, "sequence": held.assignment.sequence}
        assert (await device.report(report)).status_code == 200
        again = await decided(world, device, await device.call("GET", "assignment"), floors)
        assert isinstance(again, Accepted), again
        assert again.assignment.workloads == ()
        assert (await world.hub.audit.page(limit=100, after=0)).items[-1].outcome.startswith("ahead: ")

    hub(backed_up)
    for leftover in tmp_path.glob("hub.sqlite*"):
        leftover.unlink()
    shutil.move(tmp_path / "backup", tmp_path / "hub.sqlite")
    hub(restored)


def test_what_a_hub_issued_since_its_backup_is_never_numbered_again(hub, tmp_path):
    kept = []

    async def backed_up(world):
        device = await world.device()
        await device.call("GET", "assignment")
        kept.append(device)
        with (
            closing(sqlite3.connect(tmp_path / "hub.sqlite")) as live,
            closing(sqlite3.connect(tmp_path / "backup")) as to,
        ):
            live.backup(to)
        await desire(world, device)
        kept.append(await decided(world, device, await device.call("GET", "assignment"), Floors()))

    async def restored(world):
        device, held = kept
        device.world = world
        world.clock.advance(3600)
        await device.login()
        await desire(world, device, "2.0.0")
        floors = raise_assignment(Floors(), sequence=held.assignment.sequence, digest=held.digest, keys=held.keys)
        again = await decided(world, device, await device.call("GET", "assignment"), floors)
        assert isinstance(again, Accepted), again
        assert again.assignment.workloads[0].bundle == ref("2.0.0")

    hub(backed_up)
    for leftover in tmp_path.glob("hub.sqlite*"):
        leftover.unlink()
    shutil.move(tmp_path / "backup", tmp_path / "hub.sqlite")
    hub(restored)


def test_an_assignment_issued_by_a_clock_that_was_years_ahead_is_issued_anew(hub):
    async def scene(world):
        device = await world.device()
        world.clock.jump(10 * 365 * 86_400)
        await device.login()
        far = await accepted(world, device, await device.call("GET", "assignment"))
        world.clock.jump(-10 * 365 * 86_400)
        await device.login()
        near = await accepted(world, device, await device.call("GET", "assignment"))
        assert near.sequence == far.sequence + 1
        assert near.expires == world.clock.now() + LIFE

    hub(scene)


def test_replicas_never_issue_one_sequence_twice(hub):
    async def scene(world):
        device = await world.device()
        await desire(world, device)
        world.hub.assignments._known.clear()
        replies = await asyncio.gather(*(device.call("GET", "assignment") for _ in range(8)))
        assert len({reply.headers["etag"] for reply in replies}) == 1
        assert {(await accepted(world, device, reply)).sequence for reply in replies} == {NOW}

    hub(scene)


# --- nobody else's -------------------------------------------------------------------------------------------------------


def test_a_device_sees_only_its_own_whatever_it_names(hub):
    """Rows 14 and 13 of the attacks seen on peers: an id in path, query, header or body changes nothing."""

    async def scene(world):
        mine, other = await world.device("mine"), await world.device("other")
        await desire(world, other)
        plain = await accepted(world, mine, await mine.call("GET", "assignment"))
        for path in (f"assignment?device_id={other.id}", f"assignment?device={other.id}"):
            assert (await accepted(world, mine, await mine.call("GET", path))) == plain
        named = await mine.call("GET", "assignment", headers={"x-device-id": other.id})
        assert await accepted(world, mine, named) == plain
        for path in (f"{other.id}/assignment", f"assignment/{other.id}", "../v1/assignment/", f"devices/{other.id}"):
            reply = await mine.call("GET", path)
            assert other.id.encode() not in base64.b64decode(reply.json().get("payload", ""))
        body = {"device_id": other.id, "reports": [{"seq": 1, "at": NOW, "body": figures()}]}
        assert (await mine.call("POST", "reports", json=body)).status_code == 200
        assert (await world.call("GET", f"devices/{other.id}/reports")).json()["items"] == []
        assert len((await world.call("GET", f"devices/{mine.id}/reports")).json()["items"]) == 1

    hub(scene)


def figures():
    return {
        "type": "figures",
        "workload": "sorter",
        "digest": "sha256:" + "a" * 64,
        "window_seconds": 10.0,
        "requests": 4,
        "errors": 1,
        "latency_p50_ms": 1.0,
        "latency_p95_ms": 2.0,
        "latency_p99_ms": 3.0,
    }


# --- reports -------------------------------------------------------------------------------------------------------------


def test_a_batch_sent_twice_is_stored_once(hub):
    async def scene(world):
        device = await world.device()
        result = {
            "type": "result",
            "workload": "sorter",
            "event_id": "e1",
            "at": NOW,
            "bundle": "digits:1",
            "outputs": {"y": [1]},
        }
        for _ in range(3):
            reply = await device.report({"type": "device", "capabilities": CAPABILITIES}, result)
            assert reply.json() == {"through": 2}
        stored = (await world.call("GET", f"devices/{device.id}/results")).json()["items"]
        assert [(item["event_id"], item["outputs"]) for item in stored] == [("e1", {"y": [1]})]

    hub(scene)


def test_zstd_batches_are_taken_and_bombs_are_not(hub):
    async def scene(world):
        device = await world.device()
        body = json.dumps({"reports": [{"seq": 1, "at": NOW, "body": figures()}]}).encode()
        zstd = {"content-encoding": "zstd", "content-type": "application/json"}
        reply = await device.call("POST", "reports", content=zstandard.compress(body), headers=zstd)
        assert reply.json() == {"through": 1}
        cases = [(zstandard.compress(bytes(200_000_000)), "SKY-5009"), (b"not zstd", "SKY-5001"), (b"", "SKY-5001")]
        for content, code in cases:
            refused = await device.call("POST", "reports", content=content, headers=zstd)
            assert refused.json()["code"] == code
        refused = await device.call("POST", "reports", content=body, headers={"content-encoding": "br"})
        assert (refused.status_code, refused.json()["code"]) == (415, "SKY-5015")

    hub(scene)


def test_too_large_a_batch_is_refused(hub):
    async def scene(world):
        device = await world.device()
        refused = await device.call("POST", "reports", content=bytes(4 * 1024 * 1024 + 1))
        assert (refused.status_code, refused.json()["fields"]["limit"]) == (413, 4 * 1024 * 1024)

    hub(scene)


def test_tampered_history_does_not_block_the_outbox_but_is_kept_marked_and_audited(hub):
    async def scene(world):
        device = await world.device()
        entries: list[HistoryEntry] = []
        for n in range(3):
            before = entries[-1] if entries else None
            entries.append(
                next_entry(before, device_id=device.id, at=NOW, kind="test", fields={"n": n}, private_key=device.key)
            )
        forged = msgspec.structs.replace(entries[1], fields={"n": 99})
        history = [
            {"type": "history", "entry": json.loads(msgspec.json.encode(entry))} for entry in (entries[0], forged)
        ]
        for _ in range(2):
            assert (await device.report(*history, figures())).json() == {"through": 3}
        chain = (await world.call("GET", f"devices/{device.id}/history")).json()
        assert [entry["n"] for entry in chain["entries"]] == [1]
        view = (await world.call("GET", f"devices/{device.id}")).json()
        assert any("history entry 2" in issue for issue in view["issues"])
        assert len((await world.call("GET", f"devices/{device.id}/reports")).json()["items"]) == 3
        noted = [entry for entry in await world.audit() if entry["outcome"].startswith("tampered")]
        assert [entry["actor"] for entry in noted] == [device.id]

    hub(scene)


def test_history_of_another_device_is_not_accepted_as_ones_own(hub):
    async def scene(world):
        thief, owner = await world.device("thief"), await world.device("owner")
        entry = next_entry(None, device_id=owner.id, at=NOW, kind="test", fields={}, private_key=owner.key)
        await thief.report({"type": "history", "entry": json.loads(msgspec.json.encode(entry))})
        assert (await world.call("GET", f"devices/{thief.id}/history")).json()["entries"] == []

    hub(scene)


# --- blobs ---------------------------------------------------------------------------------------------------------------


def test_blobs_of_published_bundles_come_whole_and_in_ranges(hub):
    async def scene(world):
        device, made = await world.device(), bundle()
        await world.publish(made)
        largest = max(made.manifest.blobs, key=lambda blob: blob.size)
        url = f"blobs/{largest.digest}"
        whole = await device.call("GET", url)
        etag = whole.headers["etag"]
        assert (whole.status_code, len(whole.content), whole.headers["accept-ranges"]) == (200, largest.size, "bytes")
        rest = await device.call("GET", url, headers={"range": "bytes=100-", "if-range": etag})
        assert (rest.status_code, rest.content) == (206, whole.content[100:])
        assert rest.headers["content-range"] == f"bytes 100-{largest.size - 1}/{largest.size}"
        other = await device.call("GET", url, headers={"range": "bytes=100-", "if-range": '"other"'})
        assert (other.status_code, other.content) == (200, whole.content)
        beyond = await device.call("GET", url, headers={"range": f"bytes={largest.size}-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{largest.size}")
        asked = await device.call("HEAD", url)
        assert (asked.status_code, asked.content, asked.headers["content-length"]) == (200, b"", str(largest.size))
        assert (await device.call("GET", url, headers={"if-none-match": etag})).status_code == 304
        for blob in made.manifest.blobs:
            assert (await device.call("HEAD", f"blobs/{blob.digest}")).status_code == 200
        assert (await device.call("GET", f"blobs/{made.digest}")).content == made.manifest.data

    hub(scene)


def test_a_device_gets_no_blob_that_is_not_of_a_published_bundle(hub):
    async def scene(world):
        device, made = await world.device(), bundle()
        await world.upload(made)
        for blob in made.manifest.blobs:
            assert (await device.call("GET", f"blobs/{blob.digest}")).json()["code"] == "SKY-5004"
        assert (await device.call("HEAD", f"blobs/{made.digest}")).status_code == 404

    hub(scene)


@pytest.mark.parametrize("name", ["sha256:..", "..%2f..%2fhub.sqlite", "sha256:" + "A" * 64, "%2e%2e", "sha256:"])
def test_nothing_but_a_digest_names_a_blob(hub, name):
    async def scene(world):
        device = await world.device()
        reply = await device.call("GET", f"blobs/{name}")
        assert reply.status_code in {400, 404}
        assert reply.json()["code"] in {"SKY-5001", "SKY-5013"}

    hub(scene)
