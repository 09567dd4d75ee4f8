# SPDX-License-Identifier: Apache-2.0
"""A model that carries state, in a real runner, asked by our JSON and by Triton's own clients."""

import http.client
import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import accumulator
from skerry.bundle.manifest import State

pytestmark = pytest.mark.slow
ONE = np.ones((1, 2), np.float32)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences") / "bundle"
    samples = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    bundle = write_bundle(folder, accumulator(), samples, state=(State(input="before", output="after"),))
    with listen() as listener, RunnerProcess(bundle, listener).serve() as process:
        yield process


def post(runner, **parameters):
    connection = http.client.HTTPConnection(runner.url, timeout=20)
    body = {
        "parameters": parameters,
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1]}],
    }
    connection.request("POST", "/v2/models/digits/infer", json.dumps(body))
    answer = connection.getresponse()
    status, document = answer.status, json.loads(answer.read())
    connection.close()
    return status, document.get("code") or document["outputs"][0]["data"]


def test_json_requests_of_one_sequence_add_up(runner):
    assert post(runner, sequence_id=41, sequence_start=True) == (200, [1, 1])
    assert post(runner, sequence_id=41) == (200, [2, 2])
    assert post(runner) == (200, [1, 1])
    assert post(runner, sequence_id=41, sequence_end=True) == (200, [3, 3])
    assert post(runner, sequence_id=41) == (400, "SKY-6020")


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_start": True},
        {"sequence_id": 1.5, "sequence_start": True},
        {"sequence_id": -1, "sequence_start": True},
        {"sequence_id": 2**64, "sequence_start": True},
        {"sequence_id": "s" * 300, "sequence_start": True},
        {"sequence_id": 1, "sequence_start": "yes"},
        {"sequence_id": True},
    ],
)
def test_what_names_no_sequence_is_refused(runner, parameters):
    assert post(runner, **parameters) == (400, "SKY-6001")


def test_the_state_is_in_no_description_and_no_request(runner):
    connection = http.client.HTTPConnection(runner.url, timeout=20)
    connection.request("GET", "/v2/models/digits")
    document = json.loads(connection.getresponse().read())
    connection.close()
    assert [tensor["name"] for tensor in (*document["inputs"], *document["outputs"])] == ["x", "sum"]


@pytest.mark.parametrize("transport", [triton_http, triton_grpc], ids=["http", "grpc"])
@pytest.mark.parametrize("identifier", [7, "microphone"])
def test_tritons_clients_keep_their_sequences(runner, transport, identifier):
    client = transport.InferenceServerClient(runner.url)
    tensor = transport.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(ONE)

    def ask(**flags):
        answer = client.infer("digits", [tensor], sequence_id=identifier, **flags)
        return answer.as_numpy("sum").tolist()

    try:
        with pytest.raises(InferenceServerException, match="begin it with sequence_start"):
            ask()
        assert ask(sequence_start=True) == [[1, 1]]
        assert ask() == [[2, 2]]
        assert ask(sequence_start=True) == [[1, 1]]
        assert ask(sequence_end=True) == [[2, 2]]
        with pytest.raises(InferenceServerException):
            ask(sequence_end=True)
    finally:
        client.close()
