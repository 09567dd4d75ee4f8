# SPDX-License-Identifier: Apache-2.0

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.engine.models import affine, affine_answer, build, classifier, identity
from skerry.errors import InferenceFailed, InferenceRequestInvalid, InputMissing, ModelFileError
from skerry.runtime.datatypes import BF16, narrow, widen
from skerry.runtime.derived import Derived
from skerry.runtime.engine import Nearby
from skerry.runtime.engines import inspect
from skerry.runtime.onnx import OnnxEngine, OnnxSettings

X = np.ones((2, 4), np.float32)


def outside(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    tensor.ClearField("raw_data")


def test_inspect_reads_names_datatypes_and_shapes(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(classifier())
    assert inspect(path) == ("onnxruntime", OnnxEngine.load(classifier()).io)


def test_inspect_of_no_file_and_of_a_folder(tmp_path):
    with pytest.raises(InputMissing):
        inspect(tmp_path / "no.onnx")
    with pytest.raises(ModelFileError, match="directory"):
        inspect(tmp_path)


def test_external_weights_are_refused_before_any_file_is_read(tmp_path, monkeypatch):
    model = onnx.load_model_from_string(affine())
    outside(model.graph.initializer[0])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(48))
    with pytest.raises(ModelFileError, match=r"external data|says it has"):
        OnnxEngine.load(model.SerializeToString(), path="m.onnx")


def test_external_data_hidden_in_a_branch_of_an_if_is_refused():
    constant = numpy_helper.from_array(np.ones(2, np.float32), "c")
    outside(constant)
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=constant)],
        "then",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])],
    )
    model = build(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=then)],
        [("c", TensorProto.BOOL, [])],
        [("y", TensorProto.FLOAT, [2])],
    )
    with pytest.raises(ModelFileError, match="external data"):
        OnnxEngine.load(model)


def test_external_data_behind_an_oversized_field_tag_is_refused():
    """Protobuf drops the upper bits of a tag, so the library would find the field that a naive reader passes over."""
    model = onnx.load_model_from_string(affine())
    outside(model.graph.initializer[0])
    tensor = model.graph.initializer[0].SerializeToString()
    plain, oversized = b"\x6a", b"\xea\x80\x80\x80\x10"  # external_data (13), and the same with bit 32 set
    entry = model.graph.initializer[0].external_data[0].SerializeToString()
    hidden = tensor.replace(plain + bytes([len(entry)]), oversized + bytes([len(entry)])).replace(b"\x70\x01", b"")
    assert len(hidden) == len(tensor) + 2
    graph = model.graph.SerializeToString()
    graph_hidden = graph.replace(bytes([len(tensor)]) + tensor, bytes([len(hidden)]) + hidden)
    model.ClearField("graph")
    data = model.SerializeToString() + b"\x3a" + varint(len(graph_hidden)) + graph_hidden
    with pytest.raises(ModelFileError, match="not an ONNX model"):
        OnnxEngine.load(data)


def test_a_model_without_operator_set_is_refused():
    model = onnx.load_model_from_string(affine())
    del model.opset_import[:]
    with pytest.raises(ModelFileError, match="opset_import"):
        OnnxEngine.load(model.SerializeToString())


def test_an_unknown_operator_is_refused_in_one_line():
    model = build(
        [helper.make_node("Nonsense", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, [1])],
    )
    with pytest.raises(ModelFileError, match="Nonsense") as caught:
        OnnxEngine.load(model, path="m.onnx")
    assert "\n" not in str(caught.value)


def test_bf16_is_computed_with_and_given_back():
    twice = build(
        [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["wide", "wide"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.BFLOAT16),
        ],
        [("x", TensorProto.BFLOAT16, ["N", 2])],
        [("y", TensorProto.BFLOAT16, ["N", 2]), ("sum", TensorProto.FLOAT, ["N", 2])],
    )
    engine = OnnxEngine.load(twice)
    x = np.array([[1.5, -2.0], [0.25, np.inf]], np.float32)
    answer = engine.run({"x": narrow(x)})
    assert answer["y"].dtype == BF16
    np.testing.assert_array_equal(widen(answer["y"]), x + x)
    np.testing.assert_array_equal(answer["sum"], x + x)
    assert engine.run({"x": narrow(x[:0])})["y"].shape == (0, 2)


def test_a_bound_run_reads_and_writes_where_it_was_told():
    engine = OnnxEngine.load(classifier())
    x, scores, label = np.ones((2, 4), np.float32), np.zeros((2, 3), np.float32), np.full(2, 9)
    run = engine.bind({"x": x}, {"scores": scores, "label": label})
    for value in (1, -3):
        x[:] = value
        run()
        np.testing.assert_array_equal(scores, affine_answer(x))
        assert label.tolist() == affine_answer(x).argmax(1).tolist()
    engine.close()
    with pytest.raises(InferenceFailed):
        run()


def test_a_bound_bf16_is_its_bits():
    engine = OnnxEngine.load(identity(TensorProto.BFLOAT16, [2]))
    x, y = narrow(np.array([1.5, -2], np.float32)), narrow(np.zeros(2, np.float32))
    engine.bind({"x": x}, {"y": y})()
    assert widen(y).tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({}, {"scores": np.zeros((2, 3), np.float32)}),
        ({"x": np.ones((2, 4), np.float64)}, {"scores": np.zeros((2, 3), np.float32)}),
        ({"x": np.ones((2, 5), np.float32)}, {"scores": np.zeros((2, 3), np.float32)}),
        ({"x": np.ones((4, 2), np.float32).T}, {"scores": np.zeros((2, 3), np.float32)}),
        ({"x": X}, {"other": np.zeros((2, 3), np.float32)}),
    ],
)
def test_what_cannot_be_bound_is_refused(inputs, outputs):
    with pytest.raises(InferenceRequestInvalid):
        OnnxEngine.load(affine()).bind(inputs, outputs)


def test_an_answer_that_does_not_fit_its_buffer_is_a_failure_and_no_memory_is_touched():
    scores = np.full((5, 3), 7, np.float32)
    run = OnnxEngine.load(affine()).bind({"x": X}, {"scores": scores})
    with pytest.raises(InferenceFailed):
        run()
    assert (scores == 7).all()


def outlying(**entries):
    """`affine` with its matrix W in another file, as `entries` say."""
    model = onnx.load_model_from_string(affine())
    weights = model.graph.initializer[0]
    data = weights.raw_data
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", **entries}.items():
        weights.external_data.add(key=key, value=value)
    return model.SerializeToString(), data


def test_weights_beside_the_model_are_taken_from_who_may_read_them():
    model, data = outlying(offset="16", length="48")
    asked = []

    def read(location):
        asked.append(location)
        return bytes(16) + data

    engine = OnnxEngine.load(model, nearby=Nearby(read=read))
    np.testing.assert_array_equal(engine.run({"x": X})["scores"], affine_answer(X))
    assert asked == ["weights.bin"]


def test_a_derived_model_answers_the_same_and_saves_the_work(tmp_path):
    nearby = Nearby(cache=tmp_path)
    first = OnnxEngine.load(classifier(), nearby=nearby).run({"x": X})
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = OnnxEngine.load(classifier(), nearby=nearby).run({"x": X})
    assert {name: value.tolist() for name, value in first.items()} == {
        name: value.tolist() for name, value in again.items()
    }
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [written]


def test_a_derived_model_of_another_model_is_never_used(tmp_path):
    nearby = Nearby(cache=tmp_path)
    OnnxEngine.load(affine(), nearby=nearby)
    answer = OnnxEngine.load(affine(bias=1.0), nearby=nearby).run({"x": X})["scores"]
    np.testing.assert_array_equal(answer, affine_answer(X, bias=1.0))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-8] + b"\xff" + data[-7:], lambda _: b""]
)
def test_a_damaged_derived_model_is_made_again(tmp_path, damage):
    nearby = Nearby(cache=tmp_path)
    OnnxEngine.load(affine(), nearby=nearby)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    np.testing.assert_array_equal(OnnxEngine.load(affine(), nearby=nearby).run({"x": X})["scores"], affine_answer(X))
    assert file.read_bytes() == whole


def test_no_folder_for_derived_models_is_no_reason_not_to_load(tmp_path):
    engine = OnnxEngine.load(affine(), nearby=Nearby(cache=tmp_path / "none"))
    np.testing.assert_array_equal(engine.run({"x": X})["scores"], affine_answer(X))


def test_derived_files_are_bounded(tmp_path):
    derived = Derived(tmp_path)

    def keep(number):
        def derive(path):
            path.write_bytes(b"%d" % number)

        derived.write(f"{number}", derive)

    for number in range(7):
        keep(number)
    assert len(list(tmp_path.iterdir())) == 4
    assert derived.read("0") is None
    assert derived.read("6") == b"6"


def test_what_fails_to_be_derived_leaves_nothing(tmp_path):
    def fail(path):
        path.write_bytes(b"half")
        raise ModelFileError(path="m", problem="no")

    with pytest.raises(ModelFileError):
        Derived(tmp_path).write("k", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_provider_that_does_not_start_is_told_and_the_processor_works():
    engine = OnnxEngine.load(affine(), available=["CUDAExecutionProvider", "CPUExecutionProvider"])
    np.testing.assert_array_equal(engine.run({"x": X})["scores"], affine_answer(X))
    assert engine.on_cpu
    assert " on CPU (CUDA " in engine.description


@pytest.mark.parametrize("settings", [OnnxSettings(threads=2), OnnxSettings(arena=True), OnnxSettings(optimise=False)])
def test_settings_change_speed_not_answers(settings):
    engine = OnnxEngine.load(affine(), settings=settings)
    np.testing.assert_array_equal(engine.run({"x": X})["scores"], affine_answer(X))


def test_deep_nesting_is_refused_not_a_stack_overflow():
    body = b""
    for _ in range(3000):  # node > attribute > graph > node ...
        for number in (6, 5, 1):
            body = bytes([number << 3 | 2]) + varint(len(body)) + body
    model = b"\x08\x08" + b"\x42\x02\x10\x11" + b"\x3a" + varint(len(body)) + body
    with pytest.raises(ModelFileError):
        OnnxEngine.load(model)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
