# SPDX-License-Identifier: Apache-2.0
"""The operator API on a real hub in this process: who may what, what is recorded, and what a refusal looks like."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sqlite3
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from skerry.errors import DatabaseUnavailable, StorageError
from skerry.hub.services.access import LEAST_ROLE, Action, Allowed, decide_access
from skerry.hub.services.strangers import BURST, SECONDS_EACH
from skerry.hub.store import database
from skerry.wire.v1.device import CLIENT_ASSERTION_TYPE
from skerry.wire.v1.operator import Role
from support.bundles import bundle
from support.hub_world import CAPABILITIES, b64, play

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/device/v1/enroll"),
    ("POST", "/device/v1/token"),
    ("GET", "/device/v1/catalogue/{file:str}"),
    ("GET", "/device/v1/catalogue/targets/{path:path}"),
}
"""Everything that answers without credentials. A route that is not here must refuse; add one only on purpose."""

STRANGE_DEVICE = {"token": "x", "name": "cam", "public_key": b64(b"k" * 32), "capabilities": CAPABILITIES}
FILLED = {"device_id": "d-1", "rollout_id": "r-1", "name": "nobody", "digest": f"sha256:{'a' * 64}", "role": "line-x"}


def operations(app):
    """(method, template, handler) of every route but the schema's own."""
    for route in app.routes:
        if isinstance(route, HTTPRoute) and not route.path_format.startswith("/schema"):
            for handler in route.route_handlers:
                for method in handler.http_methods:
                    if method != "OPTIONS":
                        yield str(method), route.path, handler


def filled(template):
    for part in template.split("/"):
        if part.startswith("{"):
            template = template.replace(part, FILLED.get(part.strip("{}").split(":")[0], "x"))
    return template


def is_error_body(reply):
    body = reply.json()
    return set(body) == {"code", "message", "hint", "fields"} and body["code"].startswith("SKY-")


# --- who may what --------------------------------------------------------------------------------------------------------


def test_every_route_refuses_strangers_but_the_few_that_are_open(hub):
    async def scene(world):
        seen = set()
        for method, template, _ in operations(world.app):
            seen.add((method, template))
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic YTpi"}):
                world.clock.advance(SECONDS_EACH)
                reply = await world.client.request(method, filled(template), headers=headers)
                refused = reply.status_code == 401
                assert refused == ((method, template) not in OPEN), (method, template, reply.status_code)
        assert seen >= OPEN

    hub(scene)


def test_every_operator_route_names_an_action_and_every_action_has_a_route(hub):
    async def scene(world):
        named = {
            handler.opt.get("action")
            for _, template, handler in operations(world.app)
            if template.startswith("/api/v1")
        }
        assert named == set(Action)

    hub(scene)


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_exactly_what_the_table_says(hub, role):
    async def scene(world):
        token = await world.user(role)
        for method, template, handler in operations(world.app):
            if not template.startswith("/api/v1"):
                continue
            reply = await world.client.request(method, filled(template), headers={"authorization": f"Bearer {token}"})
            allowed = isinstance(decide_access(role, handler.opt["action"]), Allowed)
            assert (reply.status_code == 403) != allowed, (method, template, reply.status_code)
            assert reply.status_code not in {401, 500}

    hub(scene)


def test_a_refused_request_does_nothing(hub):
    """Row 16 of the attacks seen on peers: the check that fails must also stop."""

    async def scene(world):
        device = await world.device()
        viewer = await world.user(Role.VIEWER)
        for token, status in ((viewer, 403), ("", 401)):
            assert (await world.call("DELETE", f"devices/{device.id}", token=token)).status_code == status
            assert (await world.call("POST", f"devices/{device.id}/revoke", token=token)).status_code == status
            labels = {"labels": {"a": "b"}}
            assert (await world.call("PATCH", f"devices/{device.id}", token=token, json=labels)).status_code == status
            digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
            assert (await world.call("PUT", f"blobs/{digest}", token=token, content=b"hello")).status_code == status
            assert (await world.call("HEAD", f"blobs/{digest}")).status_code == 404
        view = (await world.call("GET", f"devices/{device.id}")).json()
        assert (view["revoked"], view["labels"]) == (False, {})

    hub(scene)


def test_a_second_role_for_a_name_is_not_added_to_the_first(hub):
    """Row 4: roles that add up. A name has one role for good; taking it again is a conflict and leaves it as it was."""

    async def scene(world):
        viewer = await world.user(Role.VIEWER, "bob")
        again = await world.call("POST", "users", json={"name": "bob", "role": "admin"})
        assert (again.status_code, again.json()["code"]) == (409, "SKY-5005")
        assert (await world.call("GET", "users", token=viewer)).status_code == 403
        several = await world.client.get(
            "/api/v1/users", headers=[("authorization", f"Bearer {viewer}"), ("authorization", f"Bearer {world.admin}")]
        )
        assert several.status_code == 401

    hub(scene)


def test_an_upload_overwrites_nothing(hub):
    """Row 11: whoever may upload still cannot change what others uploaded or published."""

    async def scene(world):
        made = bundle()
        await world.publish(made)
        device, operator = await world.device(), await world.user(Role.OPERATOR)
        digest = made.manifest.blobs[0].digest
        refused = await world.call("PUT", f"blobs/{digest}", token=operator, content=b"evil")
        assert (refused.status_code, refused.json()["code"]) == (422, "SKY-1004")
        before = await device.call("GET", f"blobs/{digest}")
        assert before.status_code == 200
        assert b"evil" not in before.content

    hub(scene)


def test_other_spellings_of_a_path_pass_the_same_gate(hub):
    """Row 13: a gate on one spelling is no gate."""

    async def scene(world):
        spellings = (
            "/api/v1/devices/",
            "//api/v1/devices",
            "/api//v1/devices",
            "/api/v1/./devices",
            "/api/v1/../v1/devices",
            "/API/v1/devices",
            "/api/v1/devices;x=1",
            "/api/v1/%64evices",
            "/schema/../api/v1/devices",
            "/healthz/../api/v1/devices",
        )
        for spelling in spellings:
            reply = await world.client.get(f"http://hub{spelling}")
            assert reply.status_code in {401, 404}, spelling
            assert "items" not in reply.text

    hub(scene)


def test_the_last_administrator_stays_and_a_removed_user_is_out_at_once(hub):
    async def scene(world):
        assert (await world.call("DELETE", "users/admin")).json()["code"] == "SKY-5005"
        second = await world.user(Role.ADMIN, "second")
        assert (await world.call("DELETE", "users/admin", token=second)).status_code == 204
        assert (await world.call("GET", "users")).status_code == 401
        assert (await world.call("DELETE", "users/nobody", token=second)).status_code == 404

    hub(scene)


def test_the_first_admin_token_is_made_once_and_can_be_replaced_by_the_machines_owner(hub):
    tokens = []

    async def first(world):
        tokens.append(world.admin)
        assert world.admin.startswith("sku_")
        assert (await world.call("GET", "users")).status_code == 200

    async def second(world):
        assert world.hub.first_admin is None
        assert (await world.call("GET", "users", token=tokens[0])).status_code == 200

    async def replaced(world):
        assert (await world.call("GET", "users", token=tokens[0])).status_code == 401
        assert (await world.call("GET", "users")).status_code == 200

    hub(first)
    hub(second)
    hub(replaced, new_admin_token=True)


def test_tokens_are_nowhere_in_the_data_folder(hub, tmp_path):
    given = []

    async def scene(world):
        given.extend([world.admin, await world.user(Role.VIEWER), await world.enrolment_token()])
        await world.device()

    hub(scene)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert stored
    for token in given:
        assert token.encode() not in stored


# --- audit ---------------------------------------------------------------------------------------------------------------


def test_what_a_hub_writes_is_for_its_user_alone(tmp_path, keys):
    """The database holds the secret that access tokens are signed with."""

    async def scene(world):
        await world.device()
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").glob("hub.sqlite*")}
        assert modes == {"hub.sqlite": 0o600, "hub.sqlite-wal": 0o600, "hub.sqlite-shm": 0o600}
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700

    play(scene, tmp_path / "new", keys)


def test_every_mutating_request_leaves_one_record_also_when_refused(hub):
    async def scene(world):
        device = await world.device()
        viewer = await world.user(Role.VIEWER, "vera")
        before = len(await world.audit())
        await world.call("PUT", "fleets/north", json={"selector": {"site": "north"}})
        await world.call("PUT", "fleets/north", token=viewer, json={"selector": {}})
        await world.call("DELETE", "devices/d-none", token="")
        await world.call("PATCH", f"devices/{device.id}", content=b"{")
        await world.call("GET", "devices")
        records = [
            (entry["actor"], entry["role"], entry["action"], entry["subject"], entry["outcome"])
            for entry in (await world.audit())[before:]
        ]
        assert records == [
            ("admin", "admin", "set a fleet", "fleets/north", "ok"),
            ("vera", "viewer", "set a fleet", "fleets/north", "SKY-5003"),
            ("unknown", "none", "delete a device", "devices/d-none", "SKY-5002"),
            ("admin", "admin", "label a device", f"devices/{device.id}", "SKY-5001"),
        ]

    hub(scene)


def test_every_kind_of_change_leaves_exactly_one_record(hub):
    """Uploads leave two, as files know no transactions: when they begin and how they end."""

    async def scene(world):
        device, spare = await world.device(), await world.device("spare")
        entry = world.entry(bundle())
        await world.upload(bundle())
        role = await world.signed_release(entry)
        digest = "sha256:" + hashlib.sha256(b"hello").hexdigest()
        spec = {"workload": "sorter", "bundle": "digits:1.0.0"}

        async def records(method, path, **more):
            before = len(await world.audit())
            reply = await world.call(method, path, **more)
            assert reply.status_code < 300, reply.text
            return reply, [(one["action"], one["subject"], one["outcome"]) for one in (await world.audit())[before:]]

        changes: list[tuple[str, str, dict[str, Any], Action, str]] = [
            ("PUT", "fleets/north", {"json": {"selector": {}}}, Action.SET_FLEET, "fleets/north"),
            ("PATCH", f"devices/{device.id}", {"json": {"labels": {}}}, Action.LABEL_DEVICE, f"devices/{device.id}"),
            ("POST", "enrolment-tokens", {"json": {}}, Action.MAKE_ENROLMENT_TOKEN, "enrolment-tokens []"),
            (
                "POST",
                f"catalogue/roles/line-{entry.line}",
                {"content": role},
                Action.PUBLISH,
                "catalogue/roles/line-vision",
            ),
            (
                "POST",
                f"catalogue/roles/line-{entry.line}",
                {"content": role},
                Action.PUBLISH,
                "catalogue/roles/line-vision",
            ),
            ("POST", "rollouts", {"json": spec}, Action.START_ROLLOUT, "rollouts/"),
            ("POST", f"devices/{device.id}/revoke", {}, Action.REVOKE_DEVICE, f"devices/{device.id}/revoke"),
            ("DELETE", f"devices/{spare.id}", {}, Action.DELETE_DEVICE, f"devices/{spare.id}"),
            ("POST", "users", {"json": {"name": "vera", "role": "viewer"}}, Action.MAKE_USER, "users/vera as viewer"),
            ("DELETE", "users/vera", {}, Action.DELETE_USER, "users/vera"),
        ]
        rollout = ""
        for method, path, more, action, subject in changes:
            reply, noted = await records(method, path, **more)
            assert [(one[0], one[2]) for one in noted] == [(action, "ok")], (method, path)
            assert noted[0][1].startswith(subject)
            rollout = rollout or reply.json()["id"] if path == "rollouts" else rollout
        for verb in ("pause", "resume", "undo"):
            _, noted = await records("POST", f"rollouts/{rollout}/{verb}")
            assert noted == [(Action.STEER_ROLLOUT, f"rollouts/{rollout}/{verb}", "ok")]
        _, noted = await records("PUT", f"blobs/{digest}", content=b"hello")
        assert noted == [(Action.UPLOAD_BLOB, f"blobs/{digest}", outcome) for outcome in ("begun", "ok")]
        assert rollout in next(one["subject"] for one in await world.audit() if one["action"] == Action.START_ROLLOUT)

    hub(scene)


def test_a_hub_that_dies_before_its_answer_has_recorded_what_it_did(hub):
    async def scene(world):
        async def dies(_record):
            raise RuntimeError("power cut")

        world.hub.audit.add = dies
        reply = await world.call("PUT", "fleets/north", json={"selector": {"site": "north"}})
        assert reply.status_code == 200
        assert [one["action"] for one in await world.audit()][-1] == Action.SET_FLEET

    hub(scene)


def test_a_stranger_cannot_fill_the_audit_log_nor_lock_anybody_out(hub):
    async def scene(world):
        before = len(await world.audit())
        replies = [await world.call("DELETE", "devices/d-1", token="wrong") for _ in range(BURST + 30)]
        assert [reply.status_code for reply in replies] == [401] * BURST + [429] * 30
        assert replies[-1].json()["code"] == "SKY-5010"
        assert 0 < int(replies[-1].headers["retry-after"]) <= SECONDS_EACH
        for path in ("enroll", "token"):
            form = {"grant_type": "client_credentials", "client_assertion_type": CLIENT_ASSERTION_TYPE}
            more: Any = {"data": {**form, "client_assertion": "x"}} if path == "token" else {"json": STRANGE_DEVICE}
            assert (await world.client.post(f"/device/v1/{path}", **more)).status_code == 429
        assert len(await world.audit()) - before == BURST
        assert (await (await world.device()).call("GET", "assignment")).status_code == 200
        world.clock.advance(SECONDS_EACH)
        assert (await world.call("DELETE", "devices/d-1", token="wrong")).status_code == 401
        assert (await world.call("DELETE", "devices/d-1", token="wrong")).status_code == 429

    hub(scene)


def test_audit_never_holds_a_token(hub):
    async def scene(world):
        token, enrolment = await world.user(Role.VIEWER, "vera"), await world.enrolment_token(labels={"a": "b"})
        text = json.dumps(await world.audit())
        assert token not in text
        assert enrolment not in text
        assert "users/vera as viewer" in text

    hub(scene)


# --- pages, selectors, views ---------------------------------------------------------------------------------------------


def test_pages_follow_keys_so_that_nothing_is_skipped_or_repeated(hub):
    async def scene(world):
        made = {(await world.device(f"cam-{n}", site="north" if n % 2 else "south")).id for n in range(5)}
        seen, after = [], ""
        while True:
            page = (await world.call("GET", f"devices?limit=2&after={after}")).json()
            seen += [item["id"] for item in page["items"]]
            after = page["after"]
            if not after:
                break
            if len(seen) == 2:
                made.add((await world.device("late")).id)
        assert sorted(seen) == seen
        assert len(set(seen)) == len(seen)
        assert made - set(seen) <= {device for device in made if device < seen[1]}
        north = (await world.call("GET", "devices?selector=site=north")).json()["items"]
        assert {item["name"] for item in north} == {"cam-1", "cam-3"}

    hub(scene)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "selector=nonsense", "selector=a=1,a=2", "selector=a%3D1%2Cb"]
)
def test_queries_that_make_no_sense_are_refused(hub, query):
    async def scene(world):
        reply = await world.call("GET", f"devices?{query}")
        assert (reply.status_code, reply.json()["code"]) == (400, "SKY-5001")

    hub(scene)


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 30, "\u0663"])
def test_page_keys_that_nobody_gave_are_refused(hub, after):
    async def scene(world):
        assert (await world.call("GET", "audit", params={"after": after})).status_code == 400

    hub(scene)


def test_labels_fleets_and_deletion(hub):
    async def scene(world):
        device = await world.device("cam", site="north")
        patched = await world.call("PATCH", f"devices/{device.id}", json={"labels": {"site": None, "line": "2"}})
        assert patched.json()["labels"] == {"line": "2"}
        assert (await world.call("PUT", "fleets/two", json={"selector": {"line": "2"}})).json()["devices"] == 1
        assert (await world.call("GET", "fleets/two")).json()["selector"] == {"line": "2"}
        assert (await world.call("DELETE", f"devices/{device.id}")).status_code == 204
        assert (await world.call("GET", "fleets")).json()["items"][0]["devices"] == 0
        assert (await world.call("GET", f"devices/{device.id}")).status_code == 404
        history = await world.call("GET", f"devices/{device.id}/history")
        assert (history.status_code, history.json()["name"]) == (200, "cam")
        assert (await device.call("GET", "assignment")).status_code == 401

    hub(scene)


def test_summary_counts_who_is_there(hub):
    async def scene(world):
        await world.device()
        await world.publish(bundle())
        await world.hub.presence.flush()
        summary = (await world.call("GET", "summary")).json()
        counted = {key: summary[key] for key in ("devices", "online", "models", "rollouts_running", "results")}
        assert counted == {"devices": 1, "online": 1, "models": 1, "rollouts_running": 0, "results": 0}
        assert summary["demo_trust"] is True
        world.clock.advance(600)
        assert (await world.call("GET", "summary")).json()["online"] == 0

    hub(scene)


# --- rollouts ------------------------------------------------------------------------------------------------------------


def test_a_rollout_reaches_the_devices_assignment_and_its_undo_takes_it_back(hub):
    async def scene(world):
        device = await world.device("cam", site="north")
        await world.publish(bundle())
        spec = {"workload": "sorter", "bundle": "digits:1.0.0", "selector": {"site": "north"}}
        started = await world.call("POST", "rollouts", json=spec)
        assert started.status_code == 201, started.text
        rollout = started.json()["id"]
        await world.hub.controller.tick()
        reply = await device.call("GET", "assignment")
        assert rollout.encode() in base64.b64decode(reply.json()["payload"])
        assert (await world.call("POST", f"rollouts/{rollout}/pause")).json()["status"] == "paused"
        again = await world.call("POST", f"rollouts/{rollout}/pause")
        assert (again.status_code, again.json()["code"]) == (409, "SKY-5007")
        assert (await world.call("POST", f"rollouts/{rollout}/resume")).json()["status"] == "running"
        assert (await world.call("POST", f"rollouts/{rollout}/undo")).status_code == 200
        await world.hub.controller.tick()
        gone = await device.call("GET", "assignment")
        assert rollout.encode() not in base64.b64decode(gone.json()["payload"])
        assert (await world.call("GET", "rollouts")).json()["items"][0]["id"] == rollout
        assert (await world.call("GET", f"rollouts/{rollout}/events?limit=2")).json()["items"][0]["kind"] == "created"
        actors = {entry["actor"] for entry in await world.audit() if "rollout" in entry["action"]}
        assert actors == {"admin"}

    hub(scene)


@pytest.mark.parametrize(
    "spec",
    [
        {"workload": "sorter", "bundle": "nothing:1"},
        {"workload": "sorter", "bundle": "nonsense"},
        {"workload": "sorter"},
        {"workload": "sorter", "bundle": "digits:1.0.0", "fleet": "none"},
        {"workload": "sorter", "bundle": "digits:1.0.0", "gates": [{"metric": "mood"}]},
    ],
)
def test_rollouts_that_cannot_be_are_refused(hub, spec):
    async def scene(world):
        await world.publish(bundle())
        reply = await world.call("POST", "rollouts", json=spec)
        assert reply.status_code in {400, 404, 409}
        assert is_error_body(reply)

    hub(scene)


# --- the frame around every answer ---------------------------------------------------------------------------------------


def test_every_refusal_has_one_shape(hub):
    async def scene(world):
        asked: list[tuple[str, str, dict[str, Any], int]] = [
            ("GET", "/nothing/here", {}, 404),
            ("POST", "/healthz", {}, 405),
            ("GET", "/api/v1/devices", {}, 401),
            ("GET", "/device/v1/assignment", {}, 401),
            ("POST", "/device/v1/enroll", {"content": b"{"}, 400),
            ("POST", "/device/v1/enroll", {"content": b"\xff\xfe"}, 400),
            ("POST", "/device/v1/enroll", {"json": {"name": 3}}, 400),
            ("POST", "/device/v1/enroll", {"content": bytes(70_000)}, 413),
            ("POST", "/device/v1/token", {"content": b"a=b"}, 400),
            ("GET", "/device/v1/catalogue/9.root.json", {}, 404),
            ("GET", "/device/v1/catalogue/targets/..%2f..%2fetc/passwd", {}, 404),
        ]
        for method, path, more, status in asked:
            reply = await world.client.request(method, path, **more)
            assert reply.status_code == status, (path, reply.text)
            assert is_error_body(reply), path
        assert (await world.client.post("/healthz")).headers["allow"]

    hub(scene)


def test_security_headers_and_request_id_on_every_answer(hub):
    async def scene(world):
        for path in ("/healthz", "/nothing", "/api/v1/devices", "/schema/openapi.json"):
            reply = await world.client.get(path)
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["content-security-policy"].startswith("default-src 'none'")
            assert reply.headers["cache-control"]
            assert len(reply.headers["x-request-id"]) == 16
        given = await world.client.get("/healthz", headers={"x-request-id": "trace-7"})
        assert given.headers["x-request-id"] == "trace-7"
        odd = await world.client.get("/healthz", headers={"x-request-id": "a b<script>"})
        assert odd.headers["x-request-id"] != "a b<script>"

    hub(scene)


def test_a_defect_shows_a_reference_and_nothing_else(hub, caplog):
    async def scene(world):
        async def broken(*_args, **_kwargs):
            raise RuntimeError("secret /srv/path in the text")

        world.hub.store.users = broken
        reply = await world.call("GET", "users")
        assert (reply.status_code, reply.json()["code"]) == (500, "SKY-5011")
        assert "secret" not in reply.text
        reference = reply.json()["fields"]["reference"]
        assert reference == reply.headers["x-request-id"]
        assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)

    hub(scene)


def test_storage_and_database_trouble_are_told_apart_without_paths(hub):
    async def scene(world):
        async def full(*_args, **_kwargs):
            raise StorageError(path="/srv/skerry/blobs", problem="No space left on device")

        async def away(*_args, **_kwargs):
            raise DatabaseUnavailable(problem="connection refused")

        world.hub.blobs.put = full
        reply = await world.call("PUT", f"blobs/sha256:{'a' * 64}", content=b"x")
        assert (reply.status_code, reply.json()["code"]) == (507, "SKY-4001")
        assert "/srv" not in reply.text
        world.hub.store.ping = away
        assert (await world.client.get("/readyz")).status_code == 503
        assert (await world.client.get("/healthz")).status_code == 200

    hub(scene)


def test_what_another_program_locks_is_read_on_and_refused_in_time(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_QUEUE_SECONDS", 0.2)

    async def scene(world):
        device = await world.device()
        await device.call("GET", "assignment")
        other = sqlite3.connect(tmp_path / "hub.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(world.call("PUT", "fleets/one", json={"selector": {}}))
        while not world.hub.store._db._one_writer.locked():
            await asyncio.wait([first], timeout=0.01)
        replies = await asyncio.gather(
            *(world.call("PUT", f"fleets/f{n}", json={"selector": {}}) for n in range(5)),
        )
        assert {(reply.status_code, reply.json()["code"]) for reply in replies} == {(503, "SKY-5012")}
        assert (await world.call("GET", "devices")).status_code == 200
        assert (await device.call("GET", "assignment")).status_code == 200
        other.execute("ROLLBACK")
        other.close()
        assert (await first).status_code == 200
        assert [fleet["name"] for fleet in (await world.call("GET", "fleets")).json()["items"]] == ["one"]

    hub(scene)


def test_tokens_of_one_kind_are_nothing_to_the_other_api(hub):
    async def scene(world):
        device, enrolment = await world.device(), await world.enrolment_token()
        for token in (device.access, enrolment, device.assertion(), "ske_", f"{world.admin} {world.admin}"):
            world.clock.advance(SECONDS_EACH)
            assert (await world.call("GET", "summary", token=token)).status_code == 401
        for token in (world.admin, enrolment, device.assertion(), device.access[:-2], f"{device.access}x"):
            world.clock.advance(SECONDS_EACH)
            headers = {"authorization": f"Bearer {token}"}
            assert (await world.client.get("/device/v1/assignment", headers=headers)).status_code == 401
        assert (await world.try_enrol(token=world.admin)).status_code == 403

    hub(scene)


def test_openapi_describes_every_operation(hub):
    async def scene(world):
        schema = (await world.client.get("/schema/openapi.json")).json()
        described = {(method.upper(), path) for path, operations_ in schema["paths"].items() for method in operations_}
        for method, template, _ in operations(world.app):
            plain = "/".join(
                f"{{{part.strip('{}').split(':')[0]}}}" if part.startswith("{") else part
                for part in template.split("/")
            )
            assert (method, plain) in described
        assert {"EnrolReply", "RolloutSpec", "ReportBatch"} <= {
            name.split("_")[-1] for name in schema["components"]["schemas"]
        }

    hub(scene)


def test_metrics_count_by_route_and_never_by_path(hub):
    async def scene(world):
        device = await world.device()
        for n in range(3):
            await world.call("GET", f"devices/d-{n}")
        await device.call("GET", "assignment")
        text = (await world.client.get("/metrics")).text
        assert 'skerry_hub_requests_total{method="GET",route="/api/v1/devices/{device_id}",status="404"} 3' in text
        assert "skerry_hub_devices 1" in text
        assert "d-1" not in text
        assert device.id not in text

    hub(scene)


def test_metrics_do_not_ask_the_database_as_often_as_they_are_asked(hub):
    async def scene(world):
        counted = []
        count = world.hub.store.count_results

        async def counting():
            counted.append(1)
            return await count()

        world.hub.store.count_results = counting
        for _ in range(10):
            assert (await world.client.get("/metrics")).status_code == 200
        assert len(counted) == 1
        await world.device()
        world.clock.advance(5)
        assert "skerry_hub_devices 1" in (await world.client.get("/metrics")).text

    hub(scene)


def test_uploads_at_once_of_one_blob_are_all_well(hub):
    async def scene(world):
        data = bytes(300_000)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        replies = await asyncio.gather(*(world.call("PUT", f"blobs/{digest}", content=data) for _ in range(6)))
        assert {reply.status_code for reply in replies} == {201}
        assert (await world.call("HEAD", f"blobs/{digest}")).headers["content-length"] == "300000"

    hub(scene)


def test_least_roles_stand_for_the_wire_contract():
    assert {LEAST_ROLE[action] for action in Action if action.value.startswith("read ")} <= set(Role)
    assert LEAST_ROLE[Action.PUBLISH] is Role.OPERATOR
    assert LEAST_ROLE[Action.REVOKE_DEVICE] is Role.ADMIN
