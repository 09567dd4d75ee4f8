# SPDX-License-Identifier: Apache-2.0
"""Runners killed and exchanged under load, by every way in: who had asked a dead one gets one clear 503, nobody else notices."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from acceptance.box_harness import BoxAgent, free_address
from acceptance.kill_load import BODY, Load, Tally, read_answer
from acceptance.runner_harness import write_bundle
from contracts.engine.models import affine, classifier

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

X = {"x": np.ones((2, 4), np.float32)}
INFER = b"POST /v2/models/one/infer HTTP/1.1\r\nHost: box\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def box(tmp_path):
    with BoxAgent(tmp_path / "s", address=free_address()) as it:
        it.serve("first", write_bundle(tmp_path / "one", affine(), X, name="one"))
        it.serve("second", write_bundle(tmp_path / "two", classifier(), X, name="two", version="2.0.0"))
        yield it


@pytest.fixture
def impatient(box):
    """The agent answers in the stead of a workload soon."""
    box.supervisor._keeper._patience = 0.3
    return box


def connect(box: BoxAgent, kind: str) -> socket.socket:
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.connect(box.doors("first").unix_path)
    else:
        port = box.doors("first").port if kind == "own" else int(box.address.rpartition(":")[2])
        made = socket.create_connection(("127.0.0.1", port))
    made.settimeout(20)
    return made


def asked(connected: socket.socket, request: bytes = INFER + BODY) -> tuple[int, dict[str, str], bytes]:
    connected.sendall(request)
    return read_answer(connected)


def kill(box: BoxAgent, workload: str = "first") -> None:
    before = box.pid(workload)
    os.kill(before, signal.SIGKILL)
    box.until("end", lambda: box.pid(workload) != before)


def back(box: BoxAgent, workload: str = "first") -> None:
    box.until("restart", lambda: box.pid(workload))


def test_switches_and_kills_under_load_drop_nothing(box, tmp_path):
    newer = write_bundle(tmp_path / "newer", classifier(), X, name="one", version="2.0.0")
    older = tmp_path / "one"
    pause, total = threading.Event(), Tally()
    with contextlib.ExitStack() as stack:
        loads = [
            stack.enter_context(Load(box.address, "one,two", clients=4)),
            stack.enter_context(Load(f"127.0.0.1:{box.doors('first').port}", "one", clients=4)),
            stack.enter_context(Load(box.doors("first").unix_path, "one", clients=3)),
        ]
        for bundle in (newer, older, newer):
            box.serve("first", bundle)
        for workload in ("first", "second", "first"):
            kill(box, workload)
            back(box, workload)
            pause.wait(0.3)
            box.forget_crashes(workload)
    for load in loads:
        total.add(load.tally)
    assert (total.dropped, total.wrong, total.problems) == (0, 0, [])
    assert total.right > 500
    assert set(total.refused) <= {"SKY-6011", "SKY-6012"}


@pytest.mark.parametrize("kind", ["own", "box"])
def test_idle_connection_goes_on_with_the_next_runner(box, kind):
    with connect(box, kind) as client:
        assert asked(client)[0] == 200
        kill(box)
        back(box)
        assert asked(client)[0] == 200
        assert asked(client)[0] == 200
    assert box.tally["hand-on"] >= 1


@pytest.mark.parametrize("kind", ["own", "box", "unix"])
def test_request_taken_and_not_answered_gets_one_503(box, kind):
    with connect(box, kind) as client:
        assert asked(client)[0] == 200  # on the box's address, this takes the connection to its runner
        client.sendall(INFER + BODY[:10])  # the rest never comes: it was taken off the socket, and cannot be answered
        threading.Event().wait(0.3)  # the runner takes it
        kill(box)
        status, headers, body = read_answer(client)
        assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
        assert json.loads(body)["code"] == "SKY-6011"
        assert client.recv(10) == b""
        back(box)


def test_several_requests_in_a_pipeline_are_answered_or_refused_as_a_whole(box):
    with connect(box, "own") as client:
        os.kill(box.pid("first"), signal.SIGSTOP)
        client.sendall((INFER + BODY) * 3)
        kill(box)
        back(box)
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 3:
            data += client.recv(65536) or pytest.fail(repr(data))


def test_agent_answers_in_the_stead_of_a_workload_that_does_not_come_back(impatient, tmp_path):
    box = impatient
    config = tmp_path / "one" / "skerry.json"
    config.rename(config.with_suffix(".away"))  # every start fails from now on
    waiting = [connect(box, kind) for kind in ("own", "box", "unix")]
    assert [asked(client)[0] for client in waiting] == [200, 200, 200]
    kill(box)
    for kind in ("own", "box", "unix"):
        with connect(box, kind) as client:
            status, headers, body = asked(client)
            assert (status, json.loads(body)["code"]) == (503, "SKY-6012"), kind
            assert "retry-after" in headers
    assert asked(waiting[0])[0] == 503
    with connect(box, "box") as client:
        assert asked(client, (INFER + BODY).replace(b"models/one", b"models/two"))[0] == 200
    there = http.client.HTTPConnection(box.address, timeout=10)
    there.request("POST", "/v2/repository/index")
    index = {each["name"]: each["state"] for each in json.loads(there.getresponse().read())}
    assert index == {"one": "UNAVAILABLE", "two": "READY"}
    there.request("GET", "/v2/health/ready")
    assert there.getresponse().status == 503
    there.close()
    config.with_suffix(".away").rename(config)
    box.forget_crashes("first")
    box.supervisor.start(box.launch("first", tmp_path / "one"))
    back(box)
    with connect(box, "own") as client:
        assert asked(client)[0] == 200
    status, headers, body = asked(waiting[1])
    assert (status, body[:10]) == (200, b'{"model_na'), (headers, body)  # it was idle all the while
    for client in waiting:
        client.close()


def test_client_that_resets_at_the_moment_of_the_kill_costs_nothing(box):
    clients = [connect(box, "own") for _ in range(20)]
    for client in clients:
        client.sendall(INFER)
    os.kill(box.pid("first"), signal.SIGKILL)
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    back(box)
    with connect(box, "own") as client:
        assert asked(client)[0] == 200


def test_agent_holds_no_copy_of_connections_that_have_ended(box):
    for _ in range(200):
        with connect(box, "own") as client:
            assert asked(client)[0] == 200
    box.until("all closed", lambda: sum(len(each) for each in box.supervisor._keeper._copies) == 0)


def test_paths_go_with_the_workload(box, tmp_path):
    path = Path(box.doors("first").unix_path)
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o660
    box.supervisor.stop("first")
    assert not path.exists()
    with connect(box, "box") as client:
        assert asked(client)[0] == 404
