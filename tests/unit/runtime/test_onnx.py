# SPDX-License-Identifier: Apache-2.0
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.engine.models import affine, affine_answer, build, classifier, identity
from skerry.errors import InputMissing, ModelFileError
from skerry.runtime.onnx import OnnxEngine, OnnxSettings, inspect

X = np.ones((2, 4), np.float32)


def outside(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    tensor.ClearField("raw_data")


def test_inspect_reads_names_datatypes_and_shapes(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(classifier())
    assert inspect(path) == OnnxEngine.load(classifier()).io


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
    with pytest.raises(ModelFileError, match="external data"):
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


def test_bf16_at_the_edge_is_refused_with_its_name():
    with pytest.raises(ModelFileError, match=r"x is a tensor\(bfloat16\)"):
        OnnxEngine.load(identity(TensorProto.BFLOAT16))


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
