# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from skerry.bundle.manifest import Io, TensorSpec
from skerry.oip.grpc import answers, requests, wire
from skerry.oip.messages import ModelSignature
from skerry.runtime.datatypes import narrow


def signature(datatype):
    spec = TensorSpec(name="y", dtype=datatype, shape=(-1,))
    return ModelSignature(name="m", version="1", variant="v", io=Io(inputs=(), outputs=(spec,)))


def answer(model, outputs, **more):
    asked = pb.ModelInferRequest(model_name="m", id="7").SerializeToString()
    request = requests.decode(wire.split(asked), model)
    return pb.ModelInferResponse.FromString(b"".join(answers.encode(request, outputs, model, **more)))


@pytest.mark.parametrize("size", [0, 3, 5000])
def test_bf16_travels_as_its_bits(size):
    array = narrow(np.arange(size, dtype=np.float32))
    assert answer(signature("BF16"), {"y": array}).raw_output_contents[0] == array.tobytes()


@pytest.mark.parametrize("array", [np.arange(9000, dtype=np.float32)[::3], np.arange(8000, dtype=np.float32)[::-1]])
def test_arrays_that_are_not_contiguous(array):
    assert answer(signature("FP32"), {"y": array}).raw_output_contents[0] == array.tobytes()


def test_parameters_of_every_kind():
    given = {"a": 1, "b": 2**64 - 1, "c": True, "d": "s", "e": 1.5, "f": -1}
    found = answer(signature("FP32"), {"y": np.zeros(1, np.float32)}, parameters=given)
    back = {name: getattr(each, each.WhichOneof("parameter_choice")) for name, each in found.parameters.items()}
    assert back == given
    assert found.parameters["b"].WhichOneof("parameter_choice") == "uint64_param"
    assert (found.id, found.model_version) == ("7", "1")


def test_values_that_are_elsewhere_leave_an_empty_entry():
    found = answer(signature("FP32"), {"y": np.zeros(3, np.float32)}, elsewhere={"y"})
    assert list(found.raw_output_contents) == [b""]
    assert list(found.outputs[0].shape) == [3]
