# SPDX-License-Identifier: Apache-2.0
"""The life of a real runner process, told what to do as the agent tells it."""

import http.client
import json
import resource
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine, classifier, heavy, identity, slow
from skerry.bundle.manifest import Egress
from skerry.wire.v1.runner import Acked, Drain, Drained, Failed, Figures, Loaded, Result, SelfTested, Serve

pytestmark = pytest.mark.slow
X = np.arange(20, dtype=np.float32).reshape(5, 4)


@pytest.fixture
def listener():
    with listen() as listener:
        yield listener


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", classifier(), {"x": X}, egress=Egress(results=("label", "scores")))


def infer(connection, rows=1, identifier="", features=4):
    body = {
        "id": identifier,
        "inputs": [{"name": "x", "shape": [rows, features], "datatype": "FP32", "data": [1] * rows * features}],
    }
    connection.request("POST", "/v2/models/digits/infer", json.dumps(body))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), answer.headers.get("Connection")


def connect(runner):
    return http.client.HTTPConnection(runner.url, timeout=10)


def test_nothing_is_accepted_before_serve(bundle, listener):
    with RunnerProcess(bundle, listener) as runner:
        assert runner.expect(Loaded).engine.startswith("onnxruntime ")
        tested = runner.expect(SelfTested)
        assert (tested.passed, tested.samples, tested.problem) == (True, 5, "")
        assert tested.latency_p50_ms > 0
        connection = http.client.HTTPConnection(runner.url, timeout=0.3)
        with pytest.raises(TimeoutError):
            infer(connection)
        connection.close()
        runner.serve_now()
        connection = connect(runner)
        assert infer(connection)[0] == 200
        connection.close()


def test_a_wrong_model_is_not_served_and_exits_5(tmp_path, listener):
    bundle = write_bundle(tmp_path, affine(bias=0.5), {"x": X}, reference=affine())
    with RunnerProcess(bundle, listener) as runner:
        tested = runner.expect(SelfTested)
        assert not tested.passed
        assert tested.problem == "output scores: 0 of 5 samples agree, 1 needed"
        assert runner.wait() == 5


def test_results_are_declared_outputs_and_drain_waits_for_their_acknowledgement(bundle, listener):
    with RunnerProcess(bundle, listener, linger_seconds=0.2) as runner:
        connection = connect(runner.serve())
        infer(connection, identifier="a")
        infer(connection, rows=6)
        first, second = runner.expect(Result), runner.expect(Result)
        assert (first.n, second.n, first.request_id, second.request_id) == (1, 2, "a", "")
        assert list(first.outputs) == ["label", "scores"]
        assert list(second.outputs) == ["label"]  # 18 scores are more than 16
        assert first.event_id != second.event_id
        connection.close()
        runner.send(Acked(through=1))
        runner.send(Drain())
        runner.expect(Figures)
        assert runner.process.poll() is None
        runner.send(Acked(through=2))
        assert runner.expect(Drained).unsent == 0
        assert runner.wait() == 0


def test_results_nobody_acknowledges_are_reported_as_unsent(bundle, listener):
    with RunnerProcess(bundle, listener, linger_seconds=0.2) as runner:
        connection = connect(runner.serve())
        infer(connection)
        connection.close()
        runner.expect(Result)
        runner.send(Drain())
        assert runner.expect(Drained).unsent == 1
        assert runner.wait() == 0


def test_an_agent_that_does_not_read_costs_results_and_neither_memory_nor_answers(tmp_path, listener):
    words = {"x": np.array([[b"a", b"b"]], object)}
    bundle = write_bundle(tmp_path, identity(TensorProto.STRING), words, egress=Egress(results=("y",)))
    text = "t" * 400_000
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": [text, text]}]})
    with RunnerProcess(bundle, listener, linger_seconds=0.1) as runner:
        connection = connect(runner.serve())
        with runner.deaf():
            for _ in range(60):
                connection.request("POST", "/v2/models/digits/infer", body)
                answer = connection.getresponse()
                assert answer.status == 200
                answer.read()
            resident = int(Path(f"/proc/{runner.pid}/statm").read_text().split()[1]) * resource.getpagesize()
        assert resident < 130 * 2**20
        connection.close()
        runner.send(Acked(through=1000))
        runner.send(Drain())
        assert runner.expect(Drained).unsent > 40
        assert runner.wait() == 0


def test_figures_of_live_requests_and_of_probes(bundle, listener):
    with RunnerProcess(bundle, listener, figures_seconds=0.2, probe_seconds=0.05) as runner:
        runner.serve()
        figures = runner.expect(Figures)
        while figures.probes == 0:
            figures = runner.expect(Figures)
        assert (figures.requests, figures.errors) == (0, 0)
        assert 0 < figures.latency_p50_ms <= figures.latency_p95_ms <= figures.latency_p99_ms
        connection = connect(runner)
        for _ in range(10):
            infer(connection)
        connection.close()
        total = 0
        while total < 10:
            total += runner.expect(Figures).requests
        assert total == 10


def test_a_drained_keep_alive_connection_gets_one_more_answer(bundle, listener):
    with RunnerProcess(bundle, listener, linger_seconds=5.0) as runner:
        connection = connect(runner.serve())
        assert infer(connection)[2] is None
        runner.expect(Result)
        runner.send(Drain())
        status, _, ending = infer(connection)
        while ending is None:  # the command is on its way
            status, _, ending = infer(connection)
        assert (status, ending) == (200, "close")
        connection.close()
        runner.send(Acked(through=1000))
        runner.expect(Drained)
        assert runner.wait() == 0


def test_a_request_under_way_is_finished_while_draining(tmp_path, listener):
    bundle = write_bundle(tmp_path, slow(rounds=400), {"x": np.ones((1, 512), np.float32)})
    with RunnerProcess(bundle, listener, linger_seconds=0.0) as runner:
        connection = connect(runner.serve())
        body = json.dumps(
            {"inputs": [{"name": "x", "shape": [16, 512], "datatype": "FP32", "data": [1] * 16 * 512}]}
        ).encode()
        connection.request("POST", "/v2/models/digits/infer", body)
        runner.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
        connection.close()
        assert runner.wait() == 0


def test_health_does_not_wait_behind_a_slow_model(tmp_path, listener):
    bundle = write_bundle(tmp_path, slow(rounds=400), {"x": np.ones((1, 512), np.float32)})
    with RunnerProcess(bundle, listener) as runner:
        busy, health = connect(runner.serve()), connect(runner)
        body = json.dumps(
            {"inputs": [{"name": "x", "shape": [64, 512], "datatype": "FP32", "data": [1] * 64 * 512}]}
        ).encode()
        busy.request("POST", "/v2/models/digits/infer", body)
        health.request("GET", "/v2/health/live")
        assert health.getresponse().read() == b'{"live":true}'
        health.request("GET", "/metrics")
        metrics = health.getresponse().read().decode().splitlines()
        assert "skerry_requests_waiting 1" in metrics
        assert busy.getresponse().status == 200
        busy.close()
        health.close()


def test_when_the_agent_dies_the_runner_goes_on_until_sigterm(bundle, listener):
    with RunnerProcess(bundle, listener, linger_seconds=0.1) as runner:
        connection = connect(runner.serve())
        runner.hang_up()
        assert infer(connection)[0] == 200
        assert infer(connection)[0] == 200
        connection.close()
        runner.process.send_signal(signal.SIGTERM)
        assert runner.wait() == 0


@pytest.mark.parametrize("stage", ["before start", "before serve"])
def test_an_agent_that_goes_before_serving_ends_the_runner(bundle, listener, stage):
    with RunnerProcess(bundle, listener, begin=stage != "before start") as runner:
        if stage == "before serve":
            runner.expect(SelfTested)
        runner.hang_up()
        assert runner.wait() == 0


def test_drain_before_serve(bundle, listener):
    with RunnerProcess(bundle, listener) as runner:
        runner.expect(SelfTested)
        runner.send(Drain())
        assert runner.expect(Drained).unsent == 0
        assert runner.wait() == 0


def replace_bytes(path: Path, old: bytes, new: bytes):
    path.write_bytes(path.read_bytes().replace(old, new, 1))


DAMAGE = {
    "model altered": (lambda folder: replace_bytes(folder / "model.onnx", b"scores", b"sc0res"), "SKY-1004"),
    "model gone": (lambda folder: (folder / "model.onnx").unlink(), "SKY-7007"),
    "self-test altered": (lambda folder: replace_bytes(folder / "self-test.npz", b"in.x", b"in.y"), "SKY-1004"),
    "manifest gone": (lambda folder: (folder / "skerry.json").unlink(), "SKY-7007"),
    "manifest not JSON": (lambda folder: (folder / "skerry.json").write_bytes(b"{"), "SKY-1003"),
    "other variant": (
        lambda folder: replace_bytes(folder / "skerry.json", b'"name":"fp32"', b'"name":"int8"'),
        "SKY-1003",
    ),
    "no such engine": (
        lambda folder: replace_bytes(folder / "skerry.json", b'"onnxruntime"', b'"tensorrt"'),
        "SKY-1003",
    ),
    "other engine": (lambda folder: replace_bytes(folder / "skerry.json", b'"onnxruntime"', b'"litert"'), "SKY-1002"),
    "other tensors": (lambda folder: replace_bytes(folder / "skerry.json", b'"name":"x"', b'"name":"z"'), "SKY-1003"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_bundle_is_reported_by_code_and_not_loaded(bundle, listener, case):
    damage, code = DAMAGE[case]
    damage(bundle)
    with RunnerProcess(bundle, listener) as runner:
        assert runner.expect(Failed).code == code
        assert runner.wait() == 1
        assert not any(isinstance(event, Loaded) for event in runner.events)


def test_a_manifest_other_than_the_agent_verified_is_refused(bundle, listener):
    with RunnerProcess(bundle, listener, config_digest="sha256:" + "0" * 64) as runner:
        assert runner.expect(Failed).code == "SKY-1004"
        assert runner.wait() == 1


def test_commands_that_make_no_sense(bundle, listener):
    with RunnerProcess(bundle, listener, begin=False) as runner:
        runner.send(Serve())
        assert "Serve before Start" in runner.expect(Failed).message
        assert runner.wait() == 2
    with RunnerProcess(bundle, listener, begin=False) as runner:
        runner.control.sendall(b"rubbish\n")
        assert runner.expect(Failed).code == "SKY-4003"
        assert runner.wait() == 2


def test_a_model_that_does_not_fit_the_memory_limit_is_reported(tmp_path, listener):
    bundle = write_bundle(tmp_path, heavy(100), {"x": np.ones((1, 64), np.float32)})
    with RunnerProcess(bundle, listener, memory_limit_mib=150) as runner:
        assert "memory" in runner.expect(Failed).message
        assert runner.wait() == 1


def test_a_model_within_the_memory_limit_serves(tmp_path, listener):
    bundle = write_bundle(tmp_path, heavy(20), {"x": np.ones((1, 64), np.float32)})
    with RunnerProcess(bundle, listener, memory_limit_mib=200) as runner:
        connection = connect(runner.serve())
        assert infer(connection, features=64)[0] == 200
        connection.close()


def test_memory_with_a_1_mb_model_stays_in_its_budget(tmp_path, listener, capsys):
    bundle = write_bundle(tmp_path, heavy(1), {"x": np.ones((4, 64), np.float32)})
    with RunnerProcess(bundle, listener, figures_seconds=0.1) as runner:
        connection = connect(runner.serve())
        for _ in range(200):
            infer(connection, features=64)
        connection.close()
        resident = max(runner.expect(Figures).rss_mib for _ in range(3))
    with capsys.disabled():
        print(f"\nrunner RSS with a 1 MB model: {resident:.1f} MiB (budget 90)")  # noqa: T201 - a figure the build log shall show
    assert resident <= 90


def test_more_connections_than_file_descriptors_are_survived(bundle, listener):
    with RunnerProcess(bundle, listener, figures_seconds=0.1, probe_seconds=0.1) as runner:
        connection = connect(runner.serve())
        assert infer(connection)[0] == 200
        resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (64, 64))
        flood = [socket.create_connection(listener.getsockname()) for _ in range(200)]
        try:
            for _ in range(5):
                runner.expect(Figures)
            assert infer(connection)[0] == 200
        finally:
            for client in flood:
                client.close()
        for _ in range(5):
            runner.expect(Figures)
        late = connect(runner)
        assert infer(late)[0] == 200
        late.close()
        connection.close()


def test_only_the_listening_socket_and_the_control_channel_are_open_and_nothing_is_written(bundle, listener, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with RunnerProcess(bundle, listener, env={"HOME": str(home), "TMPDIR": str(home)}) as runner:
        runner.serve()
        open_files = [str(entry.readlink()) for entry in Path(f"/proc/{runner.pid}/fd").iterdir()]
        listening = str(Path(f"/proc/self/fd/{listener.fileno()}").readlink())
        # Besides the two inherited sockets (each of them twice) only the loop's own pair, which wakes it for signals and workers.
        assert listening in open_files
        assert sum(name.startswith("socket:") for name in open_files) <= 6
        files = [name for name in open_files if name.startswith("/") and not name.startswith("/dev/")]
        assert files == [f"/proc/{runner.pid}/statm"]
        runner.send(Drain())
        runner.expect(Drained)
        assert runner.wait() == 0
    assert list(home.rglob("*")) == []
