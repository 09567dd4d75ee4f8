# SPDX-License-Identifier: Apache-2.0
"""Outside judge: tritonclient and its shared memory against a real runner that was told to take it."""

import secrets

import numpy as np
import pytest
import tritonclient.http as client
from tritonclient.utils import InferenceServerException, shared_memory

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import classifier

pytestmark = [
    pytest.mark.slow,
    # The standard library's tracker of shared memory warns of what tritonclient has already unlinked.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("shm") / "bundle", classifier(), {"x": X})


@pytest.fixture
def region():
    name = f"skerry-test-{secrets.token_hex(6)}"
    handle = shared_memory.create_shared_memory_region("both", name, 4096)
    yield name, handle
    shared_memory.destroy_shared_memory_region(handle)


def in_region(name="both"):
    tensor = client.InferInput("x", [2, 4], "FP32")
    tensor.set_shared_memory(name, X.nbytes)
    scores = client.InferRequestedOutput("scores", binary_data=True)
    scores.set_shared_memory(name, 24, offset=1024)
    return tensor, scores


def test_tritonclients_shared_memory(bundle, region):
    name, handle = region
    with listen() as listener, RunnerProcess(bundle, listener, shared_memory=True).serve() as runner:
        server = client.InferenceServerClient(runner.url)
        assert "system_shared_memory" in server.get_server_metadata()["extensions"]
        server.unregister_system_shared_memory()
        server.unregister_cuda_shared_memory()
        server.register_system_shared_memory("both", name, 4096)
        assert server.get_system_shared_memory_status() == [
            {"name": "both", "key": name, "offset": 0, "byte_size": 4096}
        ]
        shared_memory.set_shared_memory_region(handle, [X])
        tensor, scores = in_region()
        label = client.InferRequestedOutput("label", binary_data=True)
        answer = server.infer("digits", [tensor], outputs=[scores, label])
        plain = client.InferInput("x", [2, 4], "FP32")
        plain.set_data_from_numpy(X)
        expected = server.infer("digits", [plain])
        found = shared_memory.get_contents_as_numpy(handle, np.float32, [2, 3], offset=1024)
        assert np.array_equal(found, expected.as_numpy("scores"))
        assert np.array_equal(answer.as_numpy("label"), expected.as_numpy("label"))
        # perf_analyzer ends with "attempt to access non-existing object member" when there are any
        assert "parameters" not in answer.get_output("scores")
        del found
        server.unregister_system_shared_memory("both")
        with pytest.raises(InferenceServerException, match="registered"):
            server.infer("digits", [tensor], outputs=[scores])
        server.close()


def test_a_runner_that_was_not_told_to_takes_none(bundle, region):
    name, _ = region
    with listen() as listener, RunnerProcess(bundle, listener).serve() as runner:
        server = client.InferenceServerClient(runner.url)
        assert "system_shared_memory" not in server.get_server_metadata()["extensions"]
        with pytest.raises(InferenceServerException):
            server.register_system_shared_memory("both", name, 4096)
        tensor, scores = in_region()
        with pytest.raises(InferenceServerException, match="not offered"):
            server.infer("digits", [tensor], outputs=[scores])
        server.close()
