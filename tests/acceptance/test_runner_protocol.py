# SPDX-License-Identifier: Apache-2.0
"""A real runner answers the protocol's own client, unmodified."""

import http.client
import json

import numpy as np
import pytest
import tritonclient.http as triton
from onnx import helper
from tritonclient.utils import InferenceServerException

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine_answer, classifier, identities

pytestmark = pytest.mark.slow
X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"), classifier(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        yield runner.serve()


@pytest.fixture
def client(runner):
    client = triton.InferenceServerClient(runner.url)
    yield client
    client.close()


def ask(x, *, binary):
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    return tensor


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1.0.0")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "skerry"
    assert client.get_model_metadata("digits")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_config("digits")["backend"] == "onnxruntime"
    assert client.get_inference_statistics("digits")["model_stats"][0]["name"] == "digits"
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(client, binary_in, binary_out, compression):
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "scores")]
    x = np.tile(X, (200, 1))
    answer = client.infer(
        "digits",
        [ask(x, binary=binary_in)],
        outputs=outputs,
        request_id="r1",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    np.testing.assert_array_equal(answer.as_numpy("scores"), affine_answer(x))
    np.testing.assert_array_equal(answer.as_numpy("label"), affine_answer(x).argmax(1))
    assert answer.get_response()["id"] == "r1"


def test_asynchronous_infer(client):
    pending = [client.async_infer("digits", [ask(X + n, binary=True)]) for n in range(20)]
    for n, request in enumerate(pending):
        np.testing.assert_array_equal(request.get_result().as_numpy("scores"), affine_answer(X + n))


@pytest.mark.parametrize(
    ("model", "version", "inputs", "status", "text"),
    [
        ("nobody", "", [ask(X, binary=True)], "404", "unknown model nobody"),
        ("digits", "9", [ask(X, binary=True)], "404", "unknown model digits version 9"),
        ("digits", "", [ask(X[:, :3].copy(), binary=True)], "400", "the model takes"),
        ("digits", "", [], "400", "input x is missing"),
    ],
)
def test_errors_reach_the_client_as_status_and_text(client, model, version, inputs, status, text):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, model_version=version)
    assert caught.value.status() == status
    assert text in caught.value.message()


EVERY_TYPE = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[-65504, 6e-8]], np.float16),
    "FP32": np.array([[1e-45, 3.4e38]], np.float32),
    "FP64": np.array([[5e-324, 1.7e308]], np.float64),
    "BYTES": np.array([["grüße".encode(), b""]], object),
}


@pytest.fixture(scope="module")
def every_type(tmp_path_factory):
    """A model that gives back one tensor of each datatype."""
    model = identities({name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in EVERY_TYPE.items()})
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"), model, EVERY_TYPE, name="types")
    with listen() as listener, RunnerProcess(bundle, listener) as runner:
        client = triton.InferenceServerClient(runner.serve().url)
        yield client
        client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype(every_type, binary):
    inputs = []
    for name, value in EVERY_TYPE.items():
        tensor = triton.InferInput(name, list(value.shape), name)
        tensor.set_data_from_numpy(value, binary_data=binary or name == "FP16")
        inputs.append(tensor)
    outputs = [triton.InferRequestedOutput(f"{name}-out", binary_data=binary or name == "FP16") for name in EVERY_TYPE]
    answer = every_type.infer("types", inputs, outputs=outputs)
    for name, value in EVERY_TYPE.items():
        got = answer.as_numpy(f"{name}-out")
        if name == "BYTES" and not binary:
            got = np.array([[text.encode() for text in row] for row in got.tolist()], object)
        np.testing.assert_array_equal(got, value, err_msg=name)


def test_over_a_bare_http_client(runner):
    connection = http.client.HTTPConnection(runner.url, timeout=10)
    document = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}]}
    connection.request("POST", "/v2/models/digits/infer", iter([json.dumps(document).encode()]), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.load(answer)["outputs"][0]["data"] == affine_answer(X)[0].tolist()
    connection.request("GET", "/metrics")
    assert b"skerry_inference_requests_total" in connection.getresponse().read()
    connection.close()
