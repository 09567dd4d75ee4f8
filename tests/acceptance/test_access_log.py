# SPDX-License-Identifier: Apache-2.0
"""Every request of a real runner is a line in its log, when the agent asks for that."""

from __future__ import annotations

import http.client
import json
import time

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

X = np.full((1, 4), 7.125, np.float32)


@pytest.mark.parametrize("wanted", [True, False])
def test_requests_by_either_protocol_are_lines_of_the_log(tmp_path, wanted):
    grpc = pytest.importorskip("tritonclient.grpc")
    bundle = write_bundle(tmp_path / "b", affine(), {"x": X})
    with listen() as listener, RunnerProcess(bundle, listener, access_log=wanted) as runner:
        runner.serve()
        client = http.client.HTTPConnection(runner.url, timeout=20)
        inputs = [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X.ravel().tolist()}]
        for path in ("/v2/models/digits/infer?secret=1", "/v2/models/none/infer"):
            client.request("POST", path, json.dumps({"inputs": inputs}))
            client.getresponse().read()
        client.close()
        with grpc.InferenceServerClient(runner.url) as other:
            given = grpc.InferInput("x", [1, 4], "FP32")
            given.set_data_from_numpy(X)
            other.infer("digits", [given], client_timeout=20)
        parts = (
            "protocol=http method=POST path=/v2/models/digits/infer status=200",
            "protocol=http method=POST path=/v2/models/none/infer status=404",
            "protocol=grpc method=POST path=/inference.GRPCInferenceService/ModelInfer status=0",
        )
        end = time.monotonic() + 10
        while wanted and not all(part in runner.stderr.decode() for part in parts):
            assert time.monotonic() < end, runner.stderr.decode()
        log = runner.stderr.decode()
        assert wanted or "protocol=" not in log
        assert "secret" not in log
        assert "7.125" not in log
