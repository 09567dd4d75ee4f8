# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from contracts.engine.models import affine_answer, classifier
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.shm.regions import Regions
from unit.serve.grpc.rig import GrpcRig, X, request

NAMES = ("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister")
STATUS, REGISTER, UNREGISTER = NAMES


class RegionRig(GrpcRig):
    """With regions of one folder, which a fixture names."""


@pytest.fixture
def memory(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(X.tobytes() + bytes(4096 - X.nbytes))
    return path


@pytest.fixture
def rig(tmp_path, memory):
    RegionRig.regions = Regions(str(tmp_path))
    rig = RegionRig({"m": classifier()})
    asked = pb.SystemSharedMemoryRegisterRequest(name="r", key="/key", byte_size=4096)
    rig.ask(REGISTER, asked, pb.SystemSharedMemoryRegisterResponse)
    return rig


def placed(*, size=X.nbytes, offset=0, region="r"):
    message = request(None, shape=[1, 4])
    message.inputs[0].parameters["shared_memory_region"].string_param = region
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        message.inputs[0].parameters["shared_memory_offset"].int64_param = offset
    return message


def test_regions_are_registered_shown_and_given_up(rig):
    status = rig.ask(STATUS, pb.SystemSharedMemoryStatusRequest(), pb.SystemSharedMemoryStatusResponse)
    assert (status.regions["r"].key, status.regions["r"].byte_size) == ("/key", 4096)
    rig.ask(UNREGISTER, pb.SystemSharedMemoryUnregisterRequest(), pb.SystemSharedMemoryUnregisterResponse)
    status = rig.ask(STATUS, pb.SystemSharedMemoryStatusRequest(), pb.SystemSharedMemoryStatusResponse)
    assert not status.regions
    server = rig.ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert "system_shared_memory" in server.extensions


def test_an_input_and_an_output_in_shared_memory(rig, memory):
    for number in range(3):
        x = X + number
        memory.write_bytes(x.tobytes() + bytes(4096 - X.nbytes))
        message = placed()
        scores = message.outputs.add(name="scores")
        scores.parameters["shared_memory_region"].string_param = "r"
        scores.parameters["shared_memory_byte_size"].int64_param = 12
        scores.parameters["shared_memory_offset"].int64_param = 1024
        message.outputs.add(name="label")
        answer = rig.infer(message)
        assert [list(output.shape) for output in answer.outputs] == [[1, 3], [1]]
        assert list(answer.raw_output_contents) == [b"", affine_answer(x).argmax(1).tobytes()]
        assert memory.read_bytes()[1024:1036] == affine_answer(x).tobytes()


def test_an_input_in_shared_memory_and_outputs_in_the_answer(rig):
    assert rig.infer(placed()).raw_output_contents[0] == affine_answer(X).tobytes()


@pytest.mark.parametrize(
    "message",
    [
        placed(size=15),
        placed(offset=4090),
        placed(region="nobody"),
        placed(size=-1),
    ],
)
def test_places_that_are_none(rig, message):
    answer = rig.call(message)
    assert answer.status == GrpcStatus.INVALID_ARGUMENT
    assert "key" not in answer.text


def test_memory_cut_short_by_its_owner(rig, memory):
    memory.write_bytes(b"")
    assert rig.call(placed()).status == GrpcStatus.INVALID_ARGUMENT


def test_values_and_a_place(rig):
    message = placed()
    message.raw_input_contents.append(X.tobytes())
    assert rig.call(message).status == GrpcStatus.INVALID_ARGUMENT
    message = placed()
    message.inputs[0].contents.fp32_contents.extend(np.ravel(X).tolist())
    assert rig.call(message).status == GrpcStatus.INVALID_ARGUMENT


@pytest.mark.parametrize("method", NAMES)
def test_nothing_of_it_without_the_extension(method):
    assert GrpcRig().call(b"", f"/inference.GRPCInferenceService/{method}").status == GrpcStatus.UNIMPLEMENTED
