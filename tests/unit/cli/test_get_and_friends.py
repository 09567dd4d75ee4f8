# SPDX-License-Identifier: Apache-2.0
import json

import msgspec
import pytest

from skerry.wire.v1.operator import (
    AuditEntry,
    EnrolmentToken,
    FleetView,
    Role,
    StoredResult,
    Summary,
    UserToken,
    UserView,
)
from skerry.wire.v1.report import (
    FiguresReport,
    Report,
    WorkloadReport,
    WorkloadState,
)
from unit.cli.scripted import HUB, NOW, Shell, device, model, page, rollout

SUMMARY = Summary(version="0.1.0", devices=5, online=4, models=1, rollouts_running=0, results=9)


def body(call):
    return msgspec.json.decode(call.body)


def test_get_devices_by_label(shell):
    shell.hub.on("GET", "/api/v1/devices", page(device()))
    ran = shell("get devices -l line=body-shop")
    assert ran.code == 0
    assert ran.out.splitlines()[1].startswith("press-1  online  30s ago")
    assert shell.hub.calls[0].query == {"selector": "line=body-shop", "limit": "500"}


def test_get_no_devices_says_how_to_get_one(shell):
    shell.hub.on("GET", "/api/v1/devices", page())
    ran = shell("get devices")
    assert (ran.code, ran.out) == (0, "")
    assert "no devices yet" in ran.err


@pytest.mark.parametrize("line", ["get device press-1 -o json", "get device/press-1 -o json"])
def test_one_named_thing_is_an_object(shell, line):
    shell.hub.on("GET", "/api/v1/devices/press-1", device())
    assert json.loads(shell(line).out)["name"] == "press-1"


@pytest.mark.parametrize(
    ("last_seen", "revoked", "status"),
    [(NOW - 5, False, "online"), (NOW - 500, False, "silent"), (None, False, "never seen"), (NOW, True, "revoked")],
)
def test_the_status_of_a_device(shell, last_seen, revoked, status):
    shell.hub.on("GET", "/api/v1/devices", page(device(last_seen=last_seen, revoked=revoked)))
    assert status in shell("get devices").out


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("weld-defect", ["1.5.1", "1.6.0"]),
        ("weld-defect:1.6.0", ["1.6.0"]),
        ("body-shop/weld-defect:1.6.0", ["1.6.0"]),
        ("body-shop/weld-defect", ["1.5.1", "1.6.0"]),
    ],
)
def test_models_by_any_of_their_names(shell, name, versions):
    shell.hub.on("GET", "/api/v1/models", page(model(), model("1.6.0")))
    lines = shell(f"get models {name}").out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [f"weld-defect:{version}" for version in versions]


def test_get_unknown_things(shell):
    shell.hub.on("GET", "/api/v1/models", page(model())).on("GET", "/api/v1/users", page())
    assert shell("get models paint:1").code == 1
    assert shell("get users anna").code == 1
    assert shell("get gadgets").code == 2
    assert shell("get fleets -l a=b").code == 2
    assert shell("get results").code == 2


def test_fleets_rollouts_users(shell):
    shell.hub.on("GET", "/api/v1/fleets", page(FleetView(name="all", selector={}, devices=7)))
    shell.hub.on("GET", "/api/v1/rollouts", page(rollout()))
    shell.hub.on("GET", "/api/v1/users", page(UserView(name="anna", role=Role.ADMIN, created=NOW - 10)))
    assert shell("get fleets").out.splitlines()[1].split() == ["all", "7", "everything"]
    assert shell("get rollouts -o name").out == "rollout/r1\n"
    assert shell("get users").out.splitlines()[1].split() == ["anna", "admin", "10s", "ago"]


def result(number):
    outputs = {"label": [number, "ok"]}
    return StoredResult(
        device_id="dev-press-1",
        workload="weld",
        event_id=f"e{number}",
        at=NOW,
        received=NOW,
        bundle="w:1",
        outputs=outputs,
    )


def test_the_newest_results_of_a_device(shell):
    shell.hub.on("GET", "/api/v1/devices/press-1", device())
    path = "/api/v1/devices/dev-press-1/results"
    shell.hub.on("GET", path, page(result(1), result(2), after="x"), page(result(3)))
    ran = shell("get results press-1 --limit 2 -o wide")
    assert [line.split()[-1] for line in ran.out.splitlines()[1:]] == ["e2", "e3"]
    assert "label=3,ok" in ran.out


def test_watch_prints_what_changed(shell):
    moved = device(last_seen=NOW)
    shell.hub.on(
        "GET", "/api/v1/devices", page(device(), device("b")), page(device(), device("b")), page(moved, device("b"))
    )

    def stop():
        if len(shell.waits) == 3:
            raise KeyboardInterrupt

    shell.on_wait = stop
    ran = shell("get devices --watch")
    assert ran.code == 130
    assert [line.split()[0] for line in ran.out.splitlines()] == ["NAME", "b", "press-1", "NAME", "press-1"]


def test_fleet_set(shell):
    shell.hub.on("PUT", "/api/v1/fleets/body", FleetView(name="body", selector={"line": "b"}, devices=3))
    shell.hub.on("GET", "/api/v1/devices", page(device()))
    assert "1 device(s) match now" in shell("fleet set body -l line=b --dry-run").out
    assert shell.hub.sent("PUT", "/api/v1/fleets/body") == []
    ran = shell("fleet set body -l line=b")
    assert ran.out == "fleet body set: 3 device(s) match now\n"
    assert "skerry deploy" in ran.err
    assert body(shell.hub.calls[-1]) == {"selector": {"line": "b"}}


def test_a_fleet_of_everything_must_be_meant(shell):
    assert shell("fleet set body").code == 2
    assert shell("fleet set body --all -l a=b").code == 2
    assert shell.hub.calls == []
    shell.hub.on("PUT", "/api/v1/fleets/body", FleetView(name="body", selector={}, devices=3))
    assert shell("fleet set body --all").code == 0
    assert body(shell.hub.calls[-1]) == {"selector": {}}


def test_label(shell):
    shell.hub.on("GET", "/api/v1/devices/press-1", device(labels={"line": "a", "old": "1"}))
    shell.hub.on("PATCH", "/api/v1/devices/dev-press-1", device(labels={"line": "b"}))
    assert "line=a,old=1 -> line=b\n" in shell("label device/press-1 line=b old- --dry-run").out
    assert shell("label press-1 line=b old-").out == "device press-1: line=b\n"
    assert body(shell.hub.sent("PATCH", "/api/v1/devices/dev-press-1")[0]) == {"labels": {"line": "b", "old": None}}


def test_an_enrolment_token_is_alone_on_stdout(shell):
    shell.hub.on("POST", "/api/v1/enrolment-tokens", EnrolmentToken(token="t0k", expires=NOW + 600), status=201)
    ran = shell("enroll-token -l line=b --ttl 10m")
    assert ran.out == "t0k\n"
    assert "within 10m" in ran.err
    assert f"skerry agent join --hub {HUB} --token t0k" in ran.err
    assert body(shell.hub.calls[0]) == {"labels": {"line": "b"}, "ttl_seconds": 600.0}
    assert shell("enroll-token --dry-run").code == 0
    assert len(shell.hub.calls) == 1
    assert json.loads(shell("enroll-token -o json").out)["token"] == "t0k"


@pytest.mark.parametrize(
    ("line", "method", "path"),
    [
        ("revoke device/press-1", "POST", "/api/v1/devices/dev-press-1/revoke"),
        ("revoke device press-1", "POST", "/api/v1/devices/dev-press-1/revoke"),
        ("delete device press-1", "DELETE", "/api/v1/devices/dev-press-1"),
        ("delete user/anna", "DELETE", "/api/v1/users/anna"),
    ],
)
def test_what_cannot_be_taken_back_needs_a_yes(shell, line, method, path):
    shell.hub.on("GET", "/api/v1/devices/press-1", device()).on(method, path, status=204)
    assert shell(line).code == 2
    assert shell(f"{line} --dry-run").out.startswith("would ")
    assert shell.hub.sent(method, path) == []
    assert shell(f"{line} --yes").code == 0
    assert len(shell.hub.sent(method, path)) == 1


def test_only_devices_and_users_can_be_deleted(shell):
    assert shell("delete fleet/a --yes").code == 2
    assert shell("delete device --yes").code == 2


def test_user_add(shell):
    shell.hub.on("POST", "/api/v1/users", UserToken(name="anna", role=Role.VIEWER, token="tt"), status=201)
    ran = shell("user add anna --role viewer")
    assert ran.out == "tt\n"
    assert body(shell.hub.calls[0]) == {"name": "anna", "role": "viewer"}
    assert shell("user add anna --role king").code == 2
    assert shell("user add anna --role admin --dry-run").out == "would add user anna with role admin\n"


def test_login_remembers_only_what_the_hub_accepted(shell):
    shell.hub.on("GET", "/api/v1/summary", SUMMARY)
    assert "would remember" in shell("login https://hub.example --token t1 --dry-run").out
    assert shell.world.settings().hub == ""
    ran = shell("login https://hub.example/ --token t1")
    assert ran.code == 0
    assert "5 device(s)" in ran.out
    assert (shell.world.settings().hub, shell.world.settings().token) == ("https://hub.example", "t1")
    assert shell.hub.calls[-1].headers["authorization"] == "Bearer t1"


def test_login_with_a_wrong_token_remembers_nothing(shell):
    shell.hub.on("GET", "/api/v1/summary", {"code": "SKY-5002", "message": "", "fields": {"problem": "x"}}, status=401)
    assert shell("login https://hub.example --token bad").code == 1
    assert shell.world.settings().token == ""


def test_login_warns_of_demo_trust(shell):
    shell.hub.on("GET", "/api/v1/summary", msgspec.structs.replace(SUMMARY, demo_trust=True))
    assert "demo keys" in shell("login https://hub.example --token t1").err


def test_no_hub_is_a_usage_error_with_the_way_out(tmp_path, capsys):
    shell = Shell(tmp_path, capsys, SKERRY_HUB="")
    ran = shell("get devices")
    assert ran.code == 2
    assert "skerry login" in ran.err


def reports():
    return [
        Report(
            seq=1,
            at=NOW,
            body=WorkloadReport(
                workload="weld",
                digest="sha256:" + "a" * 64,
                state=WorkloadState.UNDONE,
                reason="SKY-1005",
                detail="top1 0.4\x1b[0m",
            ),
        ),
        Report(
            seq=2,
            at=NOW + 1,
            body=FiguresReport(
                workload="weld",
                digest="d",
                window_seconds=2.0,
                requests=5,
                errors=0,
                latency_p50_ms=1.0,
                latency_p95_ms=2.0,
                latency_p99_ms=3.0,
            ),
        ),
    ]


def test_logs_show_events_and_with_all_the_rest(shell):
    shell.hub.on("GET", "/api/v1/devices/press-1", device())
    shell.hub.on("GET", "/api/v1/devices/dev-press-1/reports", page(*reports()))
    ran = shell("logs press-1")
    assert ran.out.startswith("2027-01-15T08:00:00.000Z  weld: undone bundle=sha256:aaaaaaaaaaaa reason=SKY-1005")
    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 1
    assert "5 requests, 0 errors in 2 s" in shell("logs press-1 --all").out
    assert json.loads(shell("logs press-1 --all --tail 1 -o json").out)[0]["seq"] == 2


def test_logs_follow_prints_each_report_once(shell):
    shell.hub.on("GET", "/api/v1/devices/press-1", device())
    shell.hub.on("GET", "/api/v1/devices/dev-press-1/reports", page(reports()[0]), page(*reports()), page(*reports()))

    def stop():
        if len(shell.waits) == 3:
            raise KeyboardInterrupt

    shell.on_wait = stop
    assert len(shell("logs press-1 --all -f").out.splitlines()) == 2


def test_logs_follow_asks_only_for_the_last_page_again(shell):
    shell.hub.on("GET", "/api/v1/devices/press-1", device())
    first, second = reports()
    path = "/api/v1/devices/dev-press-1/reports"
    shell.hub.on("GET", path, page(first, after="1"), page(second), page(second, first), page(second, first))

    def stop():
        if len(shell.waits) == 3:
            raise KeyboardInterrupt

    shell.on_wait = stop
    assert len(shell("logs press-1 --all -f").out.splitlines()) == 3
    assert [call.query.get("after") for call in shell.hub.sent("GET", path)] == [None, "1", "1", "1"]


def test_the_hubs_own_log(shell):
    entry = AuditEntry(n=3, at=NOW, actor="anna", role="admin", action="set a fleet", subject="body", outcome="ok")
    shell.hub.on("GET", "/api/v1/audit", page(entry))
    out = shell("audit hub").out
    assert "anna" in out
    assert "set a fleet" in out
