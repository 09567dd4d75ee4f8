# SPDX-License-Identifier: Apache-2.0
"""The corner cases of the protocol as gRPC has them: every fault of the client's is INVALID_ARGUMENT, with a reason."""

import gzip
import struct
import zlib

import numpy as np
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2 as pb

from contracts.engine.models import affine_answer, build, classifier, identity
from skerry.serve.grpc.status import GrpcStatus
from unit.serve.grpc.rig import GrpcRig, X, request

KINDS = {
    "bool": TensorProto.BOOL,
    "i8": TensorProto.INT8,
    "i16": TensorProto.INT16,
    "i32": TensorProto.INT32,
    "i64": TensorProto.INT64,
    "u8": TensorProto.UINT8,
    "u16": TensorProto.UINT16,
    "u32": TensorProto.UINT32,
    "u64": TensorProto.UINT64,
    "f16": TensorProto.FLOAT16,
    "f32": TensorProto.FLOAT,
    "f64": TensorProto.DOUBLE,
    "s": TensorProto.STRING,
}


def add_two():
    """a[N] + b[N] -> sum[N], FP32."""
    return build(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [("a", TensorProto.FLOAT, ["N"]), ("b", TensorProto.FLOAT, ["N"])],
        [("sum", TensorProto.FLOAT, ["N"])],
    )


@pytest.fixture(scope="module")
def rig():
    models = {name: identity(kind) for name, kind in KINDS.items()}
    return GrpcRig({"m": classifier(), "two": add_two(), **models})


def changed(change):
    message = request()
    change(message)
    return message


def typed(values, *, model="m", name="x", datatype="FP32", shape=(1, 4), field="fp32_contents"):
    message = pb.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name=name, datatype=datatype, shape=list(shape))
    tensor.contents.SetInParent()
    getattr(tensor.contents, field).extend(values)
    return message


def both():
    message = typed([1, 2, 3, 4])
    message.raw_input_contents.append(X.tobytes())
    return message


def half_typed():
    message = typed([1, 2], model="two", name="a", shape=[2])
    message.inputs.add(name="b", datatype="FP32", shape=[2])
    return message


REFUSED = {
    "raw and typed": (both, "both"),
    "neither": (lambda: request(None, shape=[1, 4]), "neither"),
    "typed and nothing": (half_typed, "no contents"),
    "raw short": (lambda: request(X.tobytes()[:-1], shape=[1, 4]), "needs 16"),
    "raw long": (lambda: request(X.tobytes() + b"!", shape=[1, 4]), "needs 16"),
    "a raw entry too many": (lambda: changed(lambda m: m.raw_input_contents.append(b"")), "2 raw_input_contents"),
    "negative dimension": (lambda: request(X, shape=[-1, 4]), "not a shape"),
    "a product that overflows": (lambda: request(X, shape=[2**62, 4]), "not a shape"),
    "a product that overflows to 0": (lambda: request(b"", shape=[2**32, 2**32]), "not a shape"),
    "a product that overflows beside an axis of 0": (lambda: request(b"", shape=[0, 2**62]), "not a shape"),
    "wrong rank": (lambda: request(X, shape=[4]), "the model takes"),
    "wrong axis": (lambda: request(X, shape=[4, 1]), "the model takes"),
    "wrong datatype": (lambda: request(X, datatype="INT32"), "the model takes FP32"),
    "unknown datatype": (lambda: request(X, datatype="FLOAT"), "no datatype FLOAT"),
    "unknown input": (lambda: request(X, name="z"), "no input z"),
    "missing input": (lambda: pb.ModelInferRequest(model_name="m"), "input x is missing"),
    "input twice": (lambda: changed(lambda m: m.inputs.append(m.inputs[0])), "twice"),
    "unknown output": (lambda: changed(lambda m: m.outputs.add(name="z")), "no output z"),
    "output twice": (lambda: changed(lambda m: [m.outputs.add(name="label") for _ in "ab"]), "twice"),
    "classification": (
        lambda: changed(
            lambda m: (
                m.outputs.add(name="label").parameters["classification"].MergeFrom(pb.InferParameter(int64_param=0))
            )
        ),
        "classification must be",
    ),
    "shared memory nobody registered": (
        lambda: changed(
            lambda m: m.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="secret"))
        ),
        "",
    ),
    "parameter without a value": (lambda: changed(lambda m: m.parameters["a"].SetInParent()), "no value"),
    "timeout not a number": (
        lambda: changed(lambda m: m.parameters["timeout"].MergeFrom(pb.InferParameter(string_param="1"))),
        "timeout",
    ),
    "timeout negative": (
        lambda: changed(lambda m: m.parameters["timeout"].MergeFrom(pb.InferParameter(int64_param=-1))),
        "timeout",
    ),
    "priority not a number": (
        lambda: changed(lambda m: m.parameters["priority"].MergeFrom(pb.InferParameter(double_param=0.5))),
        "priority",
    ),
    "typed: too few": (lambda: typed([1, 2, 3]), "do not fit shape"),
    "typed: too many": (lambda: typed([1, 2, 3, 4, 5]), "do not fit shape"),
    "typed: contents empty": (lambda: typed([]), "do not fit shape"),
    "typed: in the wrong field": (lambda: typed([1, 2, 3, 4], field="int_contents"), "belongs in fp32_contents"),
    "typed: INT8 out of range": (
        lambda: typed([300, 0], model="i8", datatype="INT8", shape=[1, 2], field="int_contents"),
        "out of the range",
    ),
    "typed: UINT16 out of range": (
        lambda: typed([65_536, 0], model="u16", datatype="UINT16", shape=[1, 2], field="uint_contents"),
        "out of the range",
    ),
    "typed: FP16": (
        lambda: typed([1, 2], model="f16", datatype="FP16", shape=[1, 2]),
        "raw_input_contents",
    ),
    "raw: BOOL of 2": (lambda: request(b"\x02\x00", model="bool", datatype="BOOL", shape=[1, 2]), "0 or 1"),
    "raw: BYTES longer than the data": (
        lambda: request(struct.pack("<I", 99) + b"a" * 8, model="s", datatype="BYTES", shape=[1, 2]),
        "longer",
    ),
    "raw: BYTES that claim 4 GiB of elements": (
        lambda: request(b"", model="s", datatype="BYTES", shape=[2**30, 2]),
        "cannot hold",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_with_a_reason(rig, case):
    make, reason = REFUSED[case]
    answer = rig.call(make())
    assert answer.status == GrpcStatus.INVALID_ARGUMENT, answer.text
    assert reason in answer.text
    assert "secret" not in answer.text
    assert rig.gone is None


@pytest.mark.parametrize("case", REFUSED)
def test_and_the_connection_goes_on(rig, case):
    rig.call(REFUSED[case][0]())
    assert rig.infer(request()).raw_output_contents[0] == affine_answer(X).tobytes()


VALUES = {
    "bool": ("BOOL", np.array([[True, False]]), "bool_contents"),
    "i8": ("INT8", np.array([[-128, 127]], np.int8), "int_contents"),
    "i16": ("INT16", np.array([[-(2**15), 2**15 - 1]], np.int16), "int_contents"),
    "i32": ("INT32", np.array([[-(2**31), 2**31 - 1]], np.int32), "int_contents"),
    "i64": ("INT64", np.array([[-(2**63), 2**63 - 1]], np.int64), "int64_contents"),
    "u8": ("UINT8", np.array([[0, 255]], np.uint8), "uint_contents"),
    "u16": ("UINT16", np.array([[0, 2**16 - 1]], np.uint16), "uint_contents"),
    "u32": ("UINT32", np.array([[0, 2**32 - 1]], np.uint32), "uint_contents"),
    "u64": ("UINT64", np.array([[0, 2**64 - 1]], np.uint64), "uint64_contents"),
    "f32": ("FP32", np.array([[np.nan, -np.inf]], np.float32), "fp32_contents"),
    "f64": ("FP64", np.array([[1e300, -0.0]]), "fp64_contents"),
    "f16": ("FP16", np.array([[1.5, -2]], np.float16), None),
}


@pytest.mark.parametrize("model", VALUES)
def test_every_datatype_comes_back_byte_for_byte(rig, model):
    datatype, array, _ = VALUES[model]
    answer = rig.infer(request(array, model=model, datatype=datatype))
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 2])
    assert list(answer.raw_output_contents) == [array.tobytes()]


@pytest.mark.parametrize("model", [name for name, value in VALUES.items() if value[2]])
def test_a_typed_request_gets_a_typed_answer(rig, model):
    datatype, array, field = VALUES[model]
    answer = rig.infer(typed(array.ravel().tolist(), model=model, datatype=datatype, shape=[1, 2], field=field))
    assert not answer.raw_output_contents
    back = np.array(getattr(answer.outputs[0].contents, str(field)), array.dtype)
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", ["bool", "u8", "f16", "f32", "f64", "i64"])
def test_large_values_of_every_size(rig, kind):
    datatype, array, _ = VALUES[kind]
    many = np.tile(array, (5000, 1))
    assert rig.infer(request(many, model=kind, datatype=datatype)).raw_output_contents[0] == many.tobytes()


def test_bytes_raw_and_typed(rig):
    elements = [b"ab", b""]
    raw = b"".join(struct.pack("<I", len(each)) + each for each in elements)
    answer = rig.infer(request(raw, model="s", datatype="BYTES", shape=[1, 2]))
    assert list(answer.raw_output_contents) == [raw]
    answer = rig.infer(typed(elements, model="s", datatype="BYTES", shape=[1, 2], field="bytes_contents"))
    assert list(answer.outputs[0].contents.bytes_contents) == elements


def test_outputs_are_those_asked_for_in_the_models_order(rig):
    message = request()
    message.outputs.add(name="label")
    answer = rig.infer(message)
    assert [each.name for each in answer.outputs] == ["label"]
    message.outputs.add(name="scores")
    assert [each.name for each in rig.infer(message).outputs] == ["scores", "label"]


def test_two_inputs_in_the_order_of_the_request(rig):
    message = pb.ModelInferRequest(model_name="two")
    for name, values in (("b", [1, 2]), ("a", [10, 20])):
        message.inputs.add(name=name, datatype="FP32", shape=[2])
        message.raw_input_contents.append(np.array(values, np.float32).tobytes())
    for _ in range(3):
        answer = rig.infer(message)
        assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [11, 22]


def test_zero_rows_where_the_axis_is_open(rig):
    answer = rig.infer(request(np.empty((0, 4), np.float32)))
    assert list(answer.outputs[0].shape) == [0, 3]
    assert list(answer.raw_output_contents) == [b"", b""]
    answer = rig.infer(typed([], shape=[0, 4]))
    assert not answer.outputs[0].contents.fp32_contents


@pytest.mark.parametrize("value", ["bool_param", "int64_param", "string_param", "double_param", "uint64_param"])
def test_parameters_of_every_kind_are_taken_and_ignored(rig, value):
    message = request()
    setattr(message.parameters["content_type"], value, "x" if value == "string_param" else 1)
    assert rig.infer(message).raw_output_contents


@pytest.mark.parametrize("identifier", ["", "abc", "grüße", "x" * 300])
def test_an_id_is_echoed(rig, identifier):
    for number in range(3):
        answer = rig.infer(request(X + number, id=identifier))
        assert answer.id == identifier
        assert answer.raw_output_contents[0] == affine_answer(X + number).tobytes()


def test_fields_nobody_knows_are_skipped(rig):
    unknown = b"\xa2\x06\x03abc" + b"\xa8\x06\x05" + b"\xa5\x06\0\0\0\0" + b"\xa1\x06" + bytes(8)
    data = unknown + request().SerializeToString() + unknown
    assert rig.infer(data).raw_output_contents[0] == affine_answer(X).tobytes()


# --- compression ---------------------------------------------------------------------------------------------------------


def squeeze(data, name):
    return gzip.compress(data, mtime=0) if name == "gzip" else zlib.compress(data)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_compressed_request(rig, name):
    data = squeeze(request().SerializeToString(), name)
    answer = rig.infer(data, packed=True, grpc_encoding=name)
    assert answer.raw_output_contents[0] == affine_answer(X).tobytes()
    plain = rig.call(b"", "/inference.GRPCInferenceService/ServerLive", grpc_encoding=name)
    assert plain.status == 0
    packed = squeeze(pb.ModelReadyRequest(name="m").SerializeToString(), name)
    ready = rig.call(packed, "/inference.GRPCInferenceService/ModelReady", packed=True, grpc_encoding=name)
    assert pb.ModelReadyResponse.FromString(ready.message).ready


def test_an_encoding_we_do_not_have_is_declined_and_ours_are_told(rig):
    answer = rig.call(b"x", packed=True, grpc_encoding="br")
    assert answer.status == GrpcStatus.UNIMPLEMENTED
    assert "gzip" in answer.headers["grpc-accept-encoding"]


PACKED = {
    "no gzip": (b"not gzip", "gzip"),
    "cut short": (squeeze(request().SerializeToString(), "gzip")[:-5], "gzip"),
    "without an encoding": (request().SerializeToString(), None),
    "a name without an end": (squeeze(b"\x0a" + b"\xff" * 100, "gzip"), "gzip"),
    "two models": (squeeze(request().SerializeToString() + b"\x0a\x01z", "gzip"), "gzip"),
}


@pytest.mark.parametrize("case", PACKED)
def test_a_compressed_message_that_is_none(rig, case):
    data, name = PACKED[case]
    assert rig.call(data, packed=True, grpc_encoding=name).status == GrpcStatus.INVALID_ARGUMENT


def test_a_bomb_is_stopped_at_the_limit():
    rig = GrpcRig(body_limit=100_000)
    bomb = gzip.compress(request(bytes(1_000_000), shape=[1, 250_000]).SerializeToString())
    assert rig.call(bomb, packed=True, grpc_encoding="gzip").status == GrpcStatus.RESOURCE_EXHAUSTED
    assert (
        rig.call(
            gzip.compress(bytes(1_000_000)),
            "/inference.GRPCInferenceService/ServerLive",
            packed=True,
            grpc_encoding="gzip",
        ).status
        == GrpcStatus.RESOURCE_EXHAUSTED
    )
