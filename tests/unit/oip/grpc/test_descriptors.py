# SPDX-License-Identifier: Apache-2.0
"""Our table of messages against the one in the protocol's client: made by others, from the specification itself."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from skerry.oip.grpc import documents
from skerry.oip.grpc.descriptors import _MESSAGES, message_class

NESTED = {
    "TensorMetadata": service_pb2.ModelMetadataResponse.TensorMetadata,
    "InferInputTensor": service_pb2.ModelInferRequest.InferInputTensor,
    "InferRequestedOutputTensor": service_pb2.ModelInferRequest.InferRequestedOutputTensor,
    "InferOutputTensor": service_pb2.ModelInferResponse.InferOutputTensor,
    "ModelIndex": service_pb2.RepositoryIndexResponse.ModelIndex,
    "RegionStatus": service_pb2.SystemSharedMemoryStatusResponse.RegionStatus,
}


def theirs(name):
    return NESTED.get(name) or getattr(service_pb2, name, None) or getattr(model_config_pb2, name)


def shape(field):
    kind = field.type
    return field.number, kind, field.is_repeated, kind == FieldDescriptor.TYPE_MESSAGE and is_map(field)


def is_map(field):
    return field.message_type.GetOptions().map_entry


@pytest.mark.parametrize("name", _MESSAGES["inference"])
def test_every_field_is_the_specifications(name):
    other = theirs(name).DESCRIPTOR.fields_by_name
    for field in message_class(name).DESCRIPTOR.fields:
        if name == "ModelConfig" and field.name == "dynamic_batching":
            assert other[field.name].number == field.number
            continue
        assert shape(field) == shape(other[field.name]), field.name
        assert (field.containing_oneof is None) == (other[field.name].containing_oneof is None)


def test_datatypes_have_their_numbers():
    ours = message_class("ModelInput").DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name
    other = model_config_pb2.DataType.DESCRIPTOR.values_by_name
    assert {name: value.number for name, value in ours.items()} == {name: value.number for name, value in other.items()}


def test_a_message_filled_from_a_document_is_read_by_others():
    document = {
        "name": "m",
        "max_batch_size": 0,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}],
        "parameters": {"variant": {"string_value": "fp32"}},
        "nobody knows": 5,
    }
    data = documents.encode("ModelConfigResponse", {"config": document})
    config = service_pb2.ModelConfigResponse.FromString(data).config
    assert (config.name, list(config.input[0].dims), config.input[0].data_type) == ("m", [-1, 4], 11)
    assert config.parameters["variant"].string_value == "fp32"


def test_the_server_itself_loads_no_protobuf():
    """What a runner imports before the first client of gRPC."""
    script = "import sys, skerry.runner.app; print([name for name in sys.modules if name.split('.')[0] in {'google', 'hpack'}])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
