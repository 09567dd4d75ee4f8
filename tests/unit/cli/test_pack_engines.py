# SPDX-License-Identifier: Apache-2.0
"""Packing what is more than one plain ONNX file: weights beside it, state, BF16, other engines."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from contracts.engine import litert_models, models
from skerry.bundle.manifest import State
from skerry.bundle.unpacked import unpack
from skerry.cli.packing import pack_project
from skerry.cli.project_file import load
from skerry.errors import InputMissing, ModelFileError, ProjectFileError
from skerry.runtime import variant

YAML = """\
apiVersion: skerry/v1alpha1
kind: Model
metadata: {{name: net, version: "1.0.0"}}
spec:
  release_seq: 1
  variants:
    - {{name: fp32, file: {file}, runtime: {runtime}}}
  {more}
"""


def pack(folder, files, *, file="model.onnx", runtime="onnxruntime", more="task: test"):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "skerry.yaml").write_text(YAML.format(file=file, runtime=runtime, more=more))
    return pack_project(load(folder)).bundle


def serves(bundle, folder):
    """Loaded from the unpacked bundle as a runner would, and right."""
    unpack(bundle, folder)
    loaded = variant.load(folder, "fp32")
    assert variant.self_test(loaded).passed
    return loaded


def outlying(location="parts/w.bin"):
    model = onnx.load_model_from_string(models.affine())
    weights = model.graph.initializer[0]
    data = weights.raw_data
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    return model.SerializeToString(), data


def test_weights_beside_a_model_travel_with_it(tmp_path):
    model, data = outlying()
    bundle = pack(tmp_path / "p", {"model.onnx": model, "parts/w.bin": data, "parts/other.bin": data})
    assert bundle.config.variants[0].files == ("models/fp32/model.onnx", "models/fp32/parts/w.bin")
    assert bundle.config.variants[0].size == len(model) + len(data)
    serves(bundle, tmp_path / "bundle")


def test_weights_that_are_not_there_or_are_a_link_are_refused(tmp_path):
    model, data = outlying("w.bin")
    with pytest.raises(InputMissing):
        pack(tmp_path / "p", {"model.onnx": model})
    (tmp_path / "elsewhere").write_bytes(data)
    (tmp_path / "p" / "w.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match="it is a link"):
        pack(tmp_path / "p", {"model.onnx": model})


def test_state_is_taken_out_of_what_clients_see(tmp_path):
    more = "io: {state: [{input: before, output: after}]}"
    bundle = pack(tmp_path / "p", {"model.onnx": models.accumulator()}, more=more)
    io = bundle.config.io
    assert ([spec.name for spec in io.inputs], [spec.name for spec in io.outputs]) == (["x"], ["sum"])
    assert io.state == (State(input="before", output="after"),)
    assert serves(bundle, tmp_path / "bundle").io.state == io.state


def test_a_state_that_is_also_an_input_is_refused_with_its_place(tmp_path):
    more = "io: {state: [{input: before, output: after}], inputs: [{name: before, dtype: FP32, shape: [1, 2]}]}"
    with pytest.raises(ProjectFileError, match="the model has x, not before"):
        pack(tmp_path / "p", {"model.onnx": models.accumulator()}, more=more)


def test_bf16_is_packed_with_made_up_samples(tmp_path):
    bundle = pack(tmp_path / "p", {"model.onnx": models.identity(TensorProto.BFLOAT16)})
    assert bundle.config.io.inputs[0].dtype == "BF16"
    serves(bundle, tmp_path / "bundle")


def test_bf16_samples_may_be_given_as_floats(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    np.savez(folder / "s.npz", x=np.array([[1.5, -2], [0.1, 3e38]], np.float32))
    more = "self_test: {samples: s.npz}"
    serves(pack(folder, {"model.onnx": models.identity(TensorProto.BFLOAT16)}, more=more), tmp_path / "bundle")


def test_a_litert_model(tmp_path):
    bundle = pack(tmp_path / "p", {"m.tflite": litert_models.classifier()}, file="m.tflite", runtime="litert")
    assert bundle.config.variants[0].files == ("models/fp32.tflite",)
    serves(bundle, tmp_path / "bundle")


def test_a_file_for_another_runtime_than_it_says_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="not an ONNX model"):
        pack(tmp_path / "p", {"model.onnx": litert_models.affine()})
    with pytest.raises(ModelFileError, match="not a LiteRT model"):
        pack(tmp_path / "p", {"model.onnx": models.affine()}, runtime="litert")
