# SPDX-License-Identifier: Apache-2.0
"""A real runner answers gRPC on the port of HTTP: the protocol's own client, and gRPC's own, unmodified."""

import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc  # type: ignore[import-untyped]
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import tritonclient.http
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException, shared_memory

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine_answer, classifier, identities, identity
from skerry.wire.v1.runner import Drain, Drained
from unit.serve.grpc import h2

pytestmark = pytest.mark.slow
X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"), classifier(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        yield runner.serve()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    bundle = write_bundle(
        tmp_path_factory.mktemp("mirror"), identity(TensorProto.FLOAT, [None, None]), {"x": X}, name="mirror"
    )
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        yield runner.serve()


@pytest.fixture
def client(runner):
    with triton.InferenceServerClient(runner.url) as client:
        yield client


def tensor(array, name="x", datatype="FP32"):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def test_a_runner_nobody_asks_by_grpc_does_not_load_it(tmp_path):
    bundle = write_bundle(tmp_path / "b", classifier(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        runner.serve()
        http = tritonclient.http.InferenceServerClient(runner.url)
        assert http.is_server_live()
        assert not loaded(runner.pid, "google/_upb")
        with triton.InferenceServerClient(runner.url) as client:
            assert client.is_server_live()
        assert loaded(runner.pid, "google/_upb")
        assert http.is_server_live()
        http.close()


def loaded(pid, part):
    return any(part in mapped.path for mapped in psutil.Process(pid).memory_maps())


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1.0.0")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "skerry"
    assert client.get_model_metadata("digits").inputs[0].name == "x"
    assert client.get_model_config("digits").config.backend == "onnxruntime"
    assert client.get_inference_statistics("digits").model_stats[0].name == "digits"
    assert client.get_model_repository_index().models[0].state == "READY"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("rows", [1, 3, 5000])
def test_infer(client, compression, rows):
    x = np.resize(X, (rows, 4)).astype(np.float32)
    answer = client.infer("digits", [tensor(x)], request_id="7", compression_algorithm=compression)
    np.testing.assert_array_equal(answer.as_numpy("scores"), affine_answer(x))
    np.testing.assert_array_equal(answer.as_numpy("label"), affine_answer(x).argmax(1))
    assert answer.get_response().id == "7"


def test_outputs_asked_for_a_timeout_and_a_priority(client):
    wanted = [triton.InferRequestedOutput("label")]
    answer = client.infer("digits", [tensor(X)], outputs=wanted, timeout=5_000_000, priority=1, client_timeout=5)
    assert [output.name for output in answer.get_response().outputs] == ["label"]


@pytest.mark.parametrize("megabytes", [0.02, 1, 5, 40])
def test_large_tensors_both_ways(mirror, megabytes):
    x = np.arange(int(megabytes * 262_144), dtype=np.float32).reshape(1, -1)
    with triton.InferenceServerClient(mirror.url) as client:
        np.testing.assert_array_equal(client.infer("mirror", [tensor(x)]).as_numpy("y"), x)


EVERY_TYPE = {
    "BOOL": np.array([[True, False]]),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "FP16": np.array([[-65504, 6e-8]], np.float16),
    "FP32": np.array([[1e-45, 3.4e38]], np.float32),
    "FP64": np.array([[5e-324, 1.7e308]], np.float64),
    "BYTES": np.array([["grüße".encode(), b""]], object),
}


def test_every_datatype(tmp_path):
    model = identities({name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in EVERY_TYPE.items()})
    bundle = write_bundle(tmp_path / "b", model, EVERY_TYPE, name="types")
    tensors = [tensor(value, name, name) for name, value in EVERY_TYPE.items()]
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        runner.serve()
        answer = triton.InferenceServerClient(runner.url).infer("types", tensors)
    for name, value in EVERY_TYPE.items():
        np.testing.assert_array_equal(answer.as_numpy(f"{name}-out"), value, err_msg=name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the tracker of what tritonclient has already unlinked
def test_tensors_in_system_shared_memory(tmp_path):
    bundle = write_bundle(tmp_path / "b", classifier(), {"x": X})
    key = f"skerry-test-{secrets.token_hex(6)}"
    memory = shared_memory.create_shared_memory_region("both", key, 4096)
    with listen() as listener, RunnerProcess(bundle, listener, shared_memory=True) as runner:
        client = triton.InferenceServerClient(runner.serve().url)
        client.register_system_shared_memory("both", key, 4096)
        assert client.get_system_shared_memory_status().regions["both"].byte_size == 4096
        shared_memory.set_shared_memory_region(memory, [X])
        placed = triton.InferInput("x", list(X.shape), "FP32")
        placed.set_shared_memory("both", X.nbytes)
        scores = triton.InferRequestedOutput("scores")
        scores.set_shared_memory("both", 36, offset=1024)
        answer = client.infer("digits", [placed], outputs=[scores, triton.InferRequestedOutput("label")])
        found = shared_memory.get_contents_as_numpy(memory, np.float32, [3, 3], 1024)
        np.testing.assert_array_equal(found, affine_answer(X))
        np.testing.assert_array_equal(answer.as_numpy("label"), affine_answer(X).argmax(1))
        client.unregister_system_shared_memory()
        client.close()
    shared_memory.destroy_shared_memory_region(memory)


def test_errors_are_those_of_grpc(client):
    for name, version, tensors, status in (
        ("nobody", "", [tensor(X)], "NOT_FOUND"),
        ("digits", "7", [tensor(X)], "NOT_FOUND"),
        ("digits", "", [tensor(X, name="z")], "INVALID_ARGUMENT"),
        ("digits", "", [tensor(X[:, :2].copy())], "INVALID_ARGUMENT"),
        ("digits", "", [tensor(X.astype(np.int32), datatype="INT32")], "INVALID_ARGUMENT"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(name, tensors, model_version=version)
        assert caught.value.status() == f"StatusCode.{status}"


def test_what_is_not_offered_is_unimplemented(client):
    for ask in (
        lambda: client.load_model("digits"),
        lambda: client.unload_model("digits"),
        client.get_cuda_shared_memory_status,
        client.get_trace_settings,
        client.get_log_settings,
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_streaming_is_declined_and_the_client_told(client):
    arrived = threading.Event()
    answers = []

    def answered(result, error):
        answers.append((result, error))
        arrived.set()

    client.start_stream(callback=answered)
    client.async_stream_infer("digits", [tensor(X)])
    assert arrived.wait(20)
    client.stop_stream()
    assert "not offered" in str(answers[0][1])
    assert client.is_server_live()


def test_many_calls_at_once_on_one_connection(client):
    def one(number):
        x = np.full((1, 4), number, np.float32)
        return np.array_equal(client.infer("digits", [tensor(x)]).as_numpy("scores"), affine_answer(x))

    with ThreadPoolExecutor(40) as threads:
        assert all(threads.map(one, range(600)))


def test_a_deadline_that_cannot_be_met(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("digits", [tensor(X)], timeout=1)  # a microsecond; a client's own timer would be a race
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_grpcs_own_client_with_bytes_of_its_own(runner):
    with grpc.insecure_channel(runner.url) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/no.Such/Thing")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_one_port_speaks_both(runner, client):
    http = tritonclient.http.InferenceServerClient(runner.url)
    for _ in range(3):
        assert http.is_server_live()
        assert client.is_server_live()
    http.close()


def test_the_beginning_of_http_2_may_come_in_pieces(runner):
    peer = h2.Peer()
    with socket.create_connection(runner.listener.getsockname(), timeout=10) as connected:
        stream, wire = peer.call(b"", "/inference.GRPCInferenceService/ServerLive")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in h2.PREFACE + h2.settings() + wire:
            connected.sendall(bytes((byte,)))
        while not peer.answers.get(stream, h2.Answer()).ended:
            peer.take(connected.recv(4096))
        assert peer.answers[stream].message == b"\x08\x01"


def test_a_request_of_http_1_that_begins_alike(runner):
    with socket.create_connection(runner.listener.getsockname(), timeout=10) as connected:
        connected.sendall(b"P")
        connected.sendall(b"OST /v2/health/live HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        assert connected.recv(100).startswith(b"HTTP/1.1 405")


def test_nothing_is_dropped_when_the_runner_is_replaced(tmp_path):
    """Two runners on one socket; the first drains under load, and every call of every client is answered."""
    bundle = write_bundle(tmp_path / "b", classifier(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener) as old, RunnerProcess(bundle, listener) as new:
        old.serve()
        stop = threading.Event()
        failures, answered = [], []

        def ask():
            with triton.InferenceServerClient(old.url) as client:
                while not stop.is_set():
                    try:
                        answer = client.infer("digits", [tensor(X)])
                        answered.append(np.array_equal(answer.as_numpy("scores"), affine_answer(X)))
                    except InferenceServerException as error:
                        failures.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 200 and not failures:
            threads[0].join(0.01)
        new.serve()
        old.send(Drain())
        old.expect(Drained)
        assert old.wait() == 0
        before = len(answered)
        while len(answered) < before + 200 and not failures:
            threads[0].join(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert all(answered)
