# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from contracts.engine.models import affine_answer, classifier
from skerry.oip.grpc.descriptors import message_class
from skerry.serve.grpc.status import STATUS as GRPC
from skerry.serve.grpc.status import GrpcStatus
from skerry.serve.status import STATUS as HTTP
from unit.serve.grpc import h2
from unit.serve.grpc.rig import GrpcRig, X, request

OF_HTTP_ALONE = {
    "MessageInvalid",
    "HeadTooLarge",
    "TooSlow",
    "TooManyConnections",
    "ExpectationUnmet",
    "VersionUnsupported",
    "CodingUnsupported",
}


@pytest.fixture(scope="module")
def rig():
    return GrpcRig({"m": classifier()})


def test_every_error_with_an_http_status_has_a_grpc_status():
    assert {kind.__name__ for kind in HTTP.keys() - GRPC.keys()} <= OF_HTTP_ALONE
    ours = {GrpcStatus.INTERNAL, GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED}
    for kind, status in GRPC.items():
        assert (HTTP[kind] >= 500) == (status in ours)


def test_health_and_metadata(rig):
    assert rig.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert rig.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    assert rig.ask("ModelReady", pb.ModelReadyRequest(name="m"), pb.ModelReadyResponse).ready
    server = rig.ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert (server.name, server.version) == ("skerry", "9")
    assert "statistics" in server.extensions
    model = rig.ask("ModelMetadata", pb.ModelMetadataRequest(name="m", version="1"), pb.ModelMetadataResponse)
    assert (model.name, list(model.versions), model.platform) == ("m", ["1"], "onnx_onnxruntime")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in model.inputs] == [("x", "FP32", [-1, 4])]
    assert [tensor.name for tensor in model.outputs] == ["scores", "label"]


def test_the_ready_state_of_an_unknown_model_is_no_error(rig):
    assert not rig.ask("ModelReady", pb.ModelReadyRequest(name="z"), pb.ModelReadyResponse).ready
    assert not rig.ask("ModelReady", pb.ModelReadyRequest(name="m", version="2"), pb.ModelReadyResponse).ready


def test_configuration_index_and_statistics(rig):
    config = rig.ask("ModelConfig", pb.ModelConfigRequest(name="m"), pb.ModelConfigResponse).config
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 0)
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [
        ("scores", 11, [-1, 3]),
        ("label", 9, [-1]),
    ]
    assert config.parameters["variant"].string_value == "fp32"
    index = rig.ask("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
    assert [(model.name, model.version, model.state) for model in index.models] == [("m", "1", "READY")]
    before = rig.ask("ModelStatistics", pb.ModelStatisticsRequest(name="m"), pb.ModelStatisticsResponse)
    rig.infer(request(np.concatenate([X, X])))
    after = rig.ask("ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse)
    assert after.model_stats[0].inference_count - before.model_stats[0].inference_count == 2
    assert after.model_stats[0].execution_count - before.model_stats[0].execution_count == 1


def test_a_model_that_is_not_ready():
    rig = GrpcRig()
    rig.served["m"].ready = False
    assert not rig.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    assert rig.call(request()).status == GrpcStatus.UNAVAILABLE
    index = rig.ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse)
    assert not index.models
    check = rig.call(b"", "/grpc.health.v1.Health/Check")
    assert message_class("HealthCheckResponse").FromString(check.message).status == 2


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_the_standard_health_service(rig, service):
    asked = message_class("HealthCheckRequest")(service=service).SerializeToString()
    answer = rig.call(asked, "/grpc.health.v1.Health/Check")
    assert message_class("HealthCheckResponse").FromString(answer.message).status == 1


def test_health_of_a_service_nobody_knows(rig):
    asked = message_class("HealthCheckRequest")(service="z").SerializeToString()
    assert rig.call(asked, "/grpc.health.v1.Health/Check").status == GrpcStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("ModelStreamInfer", "ModelInfer"),
        ("RepositoryModelLoad", "agent"),
        ("RepositoryModelUnload", "agent"),
        ("CudaSharedMemoryStatus", "shared memory"),
        ("CudaSharedMemoryRegister", "shared memory"),
        ("CudaSharedMemoryUnregister", "shared memory"),
        ("TraceSetting", "tracing"),
        ("LogSettings", "logging"),
        ("NoSuchMethod", "no such method"),
    ],
)
def test_what_is_not_offered_is_declined_politely(rig, method, reason):
    answer = rig.call(b"", f"/inference.GRPCInferenceService/{method}")
    assert answer.status == GrpcStatus.UNIMPLEMENTED
    assert reason in answer.text
    assert rig.gone is None


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_unknown_models_and_versions(rig, method):
    kind = getattr(pb, f"{method}Request")
    for asked in (kind(name="z"), kind(name="m", version="2")):
        answer = rig.call(asked, f"/inference.GRPCInferenceService/{method}")
        assert answer.status == GrpcStatus.NOT_FOUND
        assert "unknown model" in answer.text


def test_a_message_that_is_none_of_the_method(rig):
    for path in (h2.INFER, "/inference.GRPCInferenceService/ModelReady"):
        assert rig.call(b"\xff\xff\xff", path).status == GrpcStatus.INVALID_ARGUMENT


def test_infer(rig):
    answer = rig.infer(request(id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
        ("scores", "FP32", [1, 3]),
        ("label", "INT64", [1]),
    ]
    assert answer.raw_output_contents[0] == affine_answer(X).tobytes()
    assert answer.raw_output_contents[1] == affine_answer(X).argmax(1).tobytes()


def test_the_same_call_again_and_again_is_answered_anew(rig):
    for number in range(20):
        answer = rig.infer(request(X * number))
        assert answer.raw_output_contents[0] == affine_answer(X * number).tobytes()
    two = rig.infer(request(np.concatenate([X, X])))
    assert list(two.outputs[0].shape) == [2, 3]


def test_a_text_for_people_is_percent_encoded(rig):
    answer = rig.call(request(model="grüße 100%"))
    assert answer.headers["grpc-message"] == "unknown model gr%C3%BC%C3%9Fe 100%25"
    assert answer.text == "unknown model grüße 100%"


def test_overload_says_when_to_try_again():
    rig = GrpcRig(cost=1.0, hold=True, queue=0)
    answers = [rig.call(request()) for _ in range(3)]
    assert answers[-1].status == GrpcStatus.UNAVAILABLE
    assert int(answers[-1].headers["grpc-retry-pushback-ms"]) >= 1000


@pytest.mark.parametrize(("timeout", "status"), [("10S", 0), ("1H", 0), ("2M", 0), ("50m", 4), ("500000u", 4)])
def test_a_deadline_that_passes_while_the_call_waits(timeout, status):
    rig = GrpcRig(cost=0.01, hold=True)
    assert rig.call(request(), grpc_timeout=timeout) is None
    rig.clock.advance(1.0)
    rig.pool.release()
    rig.take()
    assert rig.peer.answers[1].status == status


@pytest.mark.parametrize("timeout", ["100u", "9n", "0S"])
def test_a_deadline_that_cannot_be_met_is_declined_at_once(timeout):
    rig = GrpcRig(cost=0.01, hold=True)
    assert rig.call(request(), grpc_timeout=timeout).status in {GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED}
    assert rig.pool.jobs == []


@pytest.mark.parametrize("timeout", ["", "5", "S", "-1S", "123456789S", "5s", "1.5S", "\u00b2S"])
def test_a_timeout_that_is_none(rig, timeout):
    answer = rig.call(request(), grpc_timeout=timeout)
    assert answer.status == GrpcStatus.INVALID_ARGUMENT
    assert "header" in answer.text


def test_the_timeout_parameter_is_a_deadline_too():
    rig = GrpcRig(cost=0.01, hold=True)
    asked = request()
    asked.parameters["timeout"].int64_param = 500_000
    assert rig.call(asked) is None
    rig.clock.advance(1.0)
    rig.pool.release()
    rig.take()
    assert rig.peer.answers[1].status == GrpcStatus.DEADLINE_EXCEEDED
