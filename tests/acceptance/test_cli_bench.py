# SPDX-License-Identifier: Apache-2.0
"""`skerry bench` on real runners, files, addresses and servers that do not answer as they should."""

import socket
import threading

import numpy as np
import pytest

from acceptance.cli_harness import Cli
from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine

pytestmark = pytest.mark.slow
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path / "home")


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "My Model.onnx"
    file.write_bytes(affine())
    return file


def test_a_model_file_is_measured_behind_a_runner_of_its_own(cli, model):
    found = cli.json("bench", model, "--seconds", "1", "--connections", "3")
    (subject,) = found["subjects"]
    assert subject["name"] == "my-model:0 file, tcp"
    figures = subject["figures"]
    assert 0 < figures["latency_p10_us"] <= figures["latency_p50_us"] <= figures["latency_p99_us"]
    assert figures["one_cpu_us"] > 0
    assert figures["many_rps"] > 100
    assert figures["rss_mib"] > figures["pss_mib"] > 10
    assert 0 < figures["cold_start_s"] < 20
    assert figures["changed_answers"] == 0
    assert found["differences"] == []


def test_two_settings_are_compared_in_the_same_rounds(cli, model):
    ran = cli.run("bench", model, "--seconds", "1", "--versus", "via=in-process", "--random")
    assert "my-model:0 file, in-process, against my-model:0 file, tcp:" in ran.stdout
    assert "VERDICT" in ran.stdout
    assert "better" in ran.stdout  # less CPU, whatever the machine does
    assert not ran.stderr


def test_a_server_that_runs_is_measured_with_its_process(cli, tmp_path):
    bundle = write_bundle(tmp_path / "b", affine(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener, probe_seconds=0) as runner:
        runner.serve()
        found = cli.json("bench", f"http://{runner.url}/digits", "--seconds", "1", "--versus", "form=json")
        names = [subject["name"] for subject in found["subjects"]]
        assert names == [f"digits at http://{runner.url}", f"digits at http://{runner.url}, json"]
        assert found["subjects"][0]["figures"]["rss_mib"] > 10
        assert {each["figure"] for each in found["differences"]} >= {
            "p50, 1 connection",
            "requests/s, many connections",
        }
        refused = cli.run("bench", f"http://{runner.url}/other", expect=None)
        assert (refused.returncode, "unknown model other" in refused.stderr) == (1, True)


def test_a_bundle_folder_in_process(cli, tmp_path):
    bundle = write_bundle(tmp_path / "b", affine(), {"x": X})
    (subject,) = cli.json("bench", bundle, "--seconds", "0.5", "--set", "via=in-process")["subjects"]
    assert subject["name"] == "digits:1.0.0 fp32, in-process"
    assert subject["figures"]["client_cpu_us"] is None


def test_what_is_not_there_is_said(cli, tmp_path):
    assert "no such file" in cli.run("bench", tmp_path / "none.onnx", expect=2).stderr
    assert "cannot reach" in cli.run("bench", "http://127.0.0.1:1", expect=1).stderr


def test_a_server_that_fails_requests_gets_no_figure(cli):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = threading.Thread(target=_liar, args=(listener,), daemon=True)
        served.start()
        ran = cli.run("bench", f"http://127.0.0.1:{listener.getsockname()[1]}/m", "--seconds", "1", expect=1)
    assert "SKY-7011" in ran.stderr
    assert "503" in ran.stderr


_SAYS = b'{"name":"m","versions":["1"],"platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}'


def _liar(listener):
    """Tells what its model is like, and then refuses every request."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(65536):
                if data.startswith(b"GET"):
                    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    connection.sendall(answer % (len(_SAYS), _SAYS))
                else:
                    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}")


def test_shared_memory_is_measured_through_our_client(cli, model, tmp_path):
    found = cli.json("bench", model, "--seconds", "0.5", "--connections", "2", "--set", "via=shm")
    (subject,) = found["subjects"]
    assert subject["name"] == "my-model:0 file, shm"
    assert subject["figures"]["many_rps"] > 100
