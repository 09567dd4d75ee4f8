# SPDX-License-Identifier: Apache-2.0
"""Requests that name regions, read more than once: for a trial, after the client may have written something else there."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from contracts.engine.models import affine_answer
from skerry.oip.grpc import wire
from skerry.serve.grpc.regions import RegionCall
from skerry.serve.http.call import Wishes, call
from skerry.serve.shm.regional import with_regions
from skerry.serve.shm.regions import Regions, Registration
from unit.serve.grpc.rig import request
from unit.serve.rig import Rig

X = np.array([[1, 2, 3, 4]], np.float32)
PLACE = {"shared_memory_region": "r", "shared_memory_byte_size": 16}


@pytest.fixture
def memory(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(X.tobytes())
    return path


@pytest.fixture
def regions(memory, tmp_path):
    regions = Regions(str(tmp_path))
    regions.register("r", Registration(key="key", byte_size=16))
    return regions


def over_http(regions):
    document = {
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": PLACE}],
        "parameters": {"binary_data_output": True},
    }
    return with_regions(call(json.dumps(document).encode(), Wishes(), received=0.0), regions)


def over_grpc(regions):
    message = request(None, shape=[1, 4])
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
    data = message.SerializeToString()
    return RegionCall(received=0.0, message=data, reply=lambda _: None, parts=wire.split(data), regions=regions)


def version_in(answer):
    """Of an encoded answer of either transport."""
    if isinstance(answer, list):
        return pb.ModelInferResponse.FromString(b"".join(answer)).model_version
    return json.loads(answer.json)["model_version"]


@pytest.mark.parametrize("made", [over_http, over_grpc])
def test_a_call_read_again_is_what_was_answered_not_what_the_client_wrote_since(made, memory, regions):
    rig = Rig()
    seen = []
    rig.desk.witness = type("Witness", (), {"answered": lambda _, *what: seen.append(what)})()
    asked = made(regions)
    rig.desk.ask(rig.served["m"], asked, lambda _: None)
    memory.write_bytes((X + 100).tobytes())
    [(_, told, answer)] = seen
    candidate = replace(rig.served["m"].signature, version="2", plans={})
    np.testing.assert_array_equal(told.decode(candidate).inputs["x"], X)
    np.testing.assert_array_equal(answer.outputs["scores"], affine_answer(X))


@pytest.mark.parametrize("made", [over_http, over_grpc])
def test_a_call_read_for_two_versions_is_answered_in_the_name_of_the_one_that_answers(made, regions):
    """A canary: the new version read it and encoded its answer, was late, and the current one answers."""
    current = Rig().served["m"].signature
    candidate = replace(current, version="2", plans={})
    outputs = {"scores": affine_answer(X)}
    asked = made(regions)
    for _ in range(2):
        for model in (candidate, current):
            assert version_in(asked.encode(asked.decode(model), outputs, model)) == model.version
