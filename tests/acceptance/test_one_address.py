# SPDX-License-Identifier: Apache-2.0
"""Several workloads behind one address: who answers what, and what is said of all of them together."""

from __future__ import annotations

import http.client
import json
import socket

import numpy as np
import pytest

from acceptance.box_harness import BoxAgent, free_address
from acceptance.runner_harness import write_bundle
from contracts.engine.models import affine, classifier

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

X = {"x": np.ones((2, 4), np.float32)}


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    with BoxAgent(folder / "s", address=free_address()) as it:
        it.serve("a", write_bundle(folder / "one", affine(), X, name="one"))
        it.serve("b", write_bundle(folder / "two", classifier(), X, name="two", version="2.0.0"))
        it.serve("c", write_bundle(folder / "one2", classifier(), X, name="one", version="2.0.0"))
        yield it


@pytest.fixture
def client(box):
    made = http.client.HTTPConnection(box.address, timeout=20)
    yield made
    made.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None):
    client.request(method, path, body)
    answer = client.getresponse()
    data = answer.read()
    return answer.status, json.loads(data) if data[:1] in {b"{", b"["} else data.decode()


def infer(rows: int = 1) -> bytes:
    values = [1.0] * (4 * rows)
    return json.dumps({"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": values}]}).encode()


def test_one_connection_asks_for_every_model_in_turn(client):
    for name, version in [("one", "1.0.0"), ("two", "2.0.0"), ("two", "2.0.0"), ("one", "1.0.0")] * 5:
        status, answer = ask(client, "POST", f"/v2/models/{name}/infer", infer())
        assert (status, answer["model_name"], answer["model_version"]) == (200, name, version)


def test_version_chooses_between_workloads_with_one_model(client):
    for version in ("2.0.0", "1.0.0", "2.0.0"):
        status, answer = ask(client, "POST", f"/v2/models/one/versions/{version}/infer", infer())
        assert (status, answer["model_version"]) == (200, version)
    assert ask(client, "GET", "/v2/models/one")[1]["versions"] == ["1.0.0"]
    assert ask(client, "POST", "/v2/models/one/versions/9/infer", infer())[0] == 404


def test_bodies_too_large_for_a_datagram_go_over_too(client):
    for name in ("one", "two", "one", "two"):
        status, answer = ask(client, "POST", f"/v2/models/{name}/infer", infer(rows=20_000))
        assert (status, answer["outputs"][0]["shape"]) == (200, [20_000, 3])


def test_pipeline_for_different_models_is_answered_in_order(box):
    host, _, port = box.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        body = infer()
        for name in ("one", "two", "one", "two"):
            head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: b\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
        data = b""
        while data.count(b"model_name") < 4:
            data += client.recv(65536) or pytest.fail(repr(data))
    names = [part.split(b'"')[2] for part in data.split(b"model_name")[1:]]
    assert names == [b"one", b"two", b"one", b"two"]


def test_workloads_keep_their_own_ports_to_themselves(box):
    own = http.client.HTTPConnection(f"127.0.0.1:{box.doors('b').port}", timeout=20)
    assert ask(own, "POST", "/v2/models/two/infer", infer())[0] == 200
    status, refused = ask(own, "POST", "/v2/models/one/infer", infer())
    assert (status, refused["code"]) == (404, "SKY-6022")
    assert str(box.doors("a").port) in refused["error"]
    status, refused = ask(own, "POST", "/v2/models/one/versions/2.0.0/infer", infer())
    assert (status, str(box.doors("c").port) in refused["error"]) == (404, True)
    assert ask(own, "GET", "/v2/models")[1] == {"models": ["two"]}
    own.close()


def test_what_is_said_of_the_box_covers_all_workloads(client):
    assert ask(client, "GET", "/v2/health/ready") == (200, {"ready": True})
    assert ask(client, "GET", "/v2/health/live") == (200, {"live": True})
    assert sorted(ask(client, "GET", "/v2/models")[1]["models"]) == ["one", "one", "two"]
    index = ask(client, "POST", "/v2/repository/index")[1]
    assert sorted((each["name"], each["version"], each["state"]) for each in index) == [
        ("one", "1.0.0", "READY"),
        ("one", "2.0.0", "READY"),
        ("two", "2.0.0", "READY"),
    ]
    stats = ask(client, "GET", "/v2/models/stats")[1]["model_stats"]
    assert sorted((each["name"], each["version"]) for each in stats)[2] == ("two", "2.0.0")
    metrics = ask(client, "GET", "/metrics")[1]
    samples = [line.rpartition(" ")[0] for line in metrics.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    helps = [line for line in metrics.splitlines() if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    assert {f'process_resident_memory_bytes{{workload="{name}"}}' for name in "abc"} <= set(samples)


def test_unknown_models_and_paths_are_refused_as_anywhere(client):
    assert ask(client, "POST", "/v2/models/none/infer", infer())[0] == 404
    assert ask(client, "GET", "/v2/nothing")[0] == 404
    assert ask(client, "GET", "/v2/models/one/infer")[0] == 405


def test_grpc_on_the_shared_address_is_answered_or_told_the_port_to_ask(box):
    grpc = pytest.importorskip("tritonclient.grpc")
    ports = {("one", "1.0.0"): "a", ("one", "2.0.0"): "c", ("two", "2.0.0"): "b"}
    told = set()
    for _ in range(40):  # whichever runner accepts
        with grpc.InferenceServerClient(box.address) as client:
            for (model, version), workload in ports.items():
                given = grpc.InferInput("x", [2, 4], "FP32")
                given.set_data_from_numpy(X["x"])
                try:
                    found = client.infer(model, [given], model_version=version, client_timeout=20).get_response()
                except grpc.InferenceServerException as refused:
                    assert refused.status() == "StatusCode.UNIMPLEMENTED"  # noqa: PT017 - an answer is right, too
                    port = str(box.doors(workload).port)
                    assert port in refused.message()  # noqa: PT017
                    told.add((port, model, version))
                else:
                    assert (found.model_name, found.model_version) == (model, version)
    assert told
    for port, model, version in told:  # and there it is
        with grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.is_model_ready(model, version)


def test_metrics_carry_the_workload_while_it_is_the_only_one(tmp_path):
    with BoxAgent(tmp_path / "s", address=free_address()) as it:
        it.serve("a", write_bundle(tmp_path / "one", affine(), X, name="one"))
        client = http.client.HTTPConnection(it.address, timeout=20)
        metrics = ask(client, "GET", "/metrics")[1]
        client.close()
    samples = [line for line in metrics.splitlines() if not line.startswith("#")]
    assert samples
    assert all('workload="a"' in line for line in samples)
