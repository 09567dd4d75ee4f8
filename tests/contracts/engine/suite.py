# SPDX-License-Identifier: Apache-2.0
"""What every engine must do. Subclass EngineContract with a fixture `load(model: bytes, name="model") -> Engine`."""

import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

from contracts.engine.models import affine, affine_answer, build, classifier, identity
from skerry.bundle.manifest import TensorSpec
from skerry.errors import InferenceFailed, InferenceRequestInvalid, ModelFileError

KINDS = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}
X = np.array([[1, 2, 3, 4], [5, 6, 7, 9]], np.float32)


class EngineContract:
    def test_io_in_the_models_order_and_protocol_words(self, load):
        io = load(classifier()).io
        assert io.inputs == (TensorSpec(name="x", dtype="FP32", shape=(-1, 4)),)
        assert io.outputs == (
            TensorSpec(name="scores", dtype="FP32", shape=(-1, 3)),
            TensorSpec(name="label", dtype="INT64", shape=(-1,)),
        )

    def test_run_answers_every_output_in_order(self, load):
        answer = load(classifier()).run({"x": X})
        assert list(answer) == ["scores", "label"]
        np.testing.assert_array_equal(answer["scores"], affine_answer(X))
        np.testing.assert_array_equal(answer["label"], affine_answer(X).argmax(1))
        assert answer["scores"].flags.c_contiguous

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_datatype_goes_through_unchanged(self, load, kind):
        number, dtype = KINDS[kind]
        engine = load(identity(number))
        assert (engine.io.inputs[0].dtype, engine.io.outputs[0].dtype) == (kind, kind)
        values: np.ndarray = np.array([[0, 1], [1, 0]], dtype)
        answer = engine.run({"x": values})["y"]
        assert answer.dtype == dtype
        np.testing.assert_array_equal(answer, values)

    def test_strings_are_bytes_both_ways(self, load):
        engine = load(identity(TensorProto.STRING))
        values = np.array([[b"", "grüße".encode()]], dtype=object)
        answer = engine.run({"x": values})["y"]
        assert answer.dtype == object
        assert answer.tolist() == values.tolist()
        assert type(answer[0, 1]) is bytes

    def test_a_string_that_is_not_utf8_is_refused(self, load):
        with pytest.raises(InferenceRequestInvalid):
            load(identity(TensorProto.STRING)).run({"x": np.array([[b"\xff", b""]], dtype=object)})

    def test_inputs_may_be_read_only_and_are_not_kept(self, load):
        engine = load(identity(TensorProto.FLOAT))
        body = bytearray(np.ones(4, np.float32).tobytes())
        view = np.frombuffer(memoryview(body).toreadonly(), np.float32).reshape(2, 2)
        answer = engine.run({"x": view})["y"]
        body[:] = bytes(16)
        assert answer.tolist() == [[1, 1], [1, 1]]

    def test_zero_rows_give_zero_rows(self, load):
        assert load(affine()).run({"x": np.empty((0, 4), np.float32)})["scores"].shape == (0, 3)

    def test_scalars_and_fixed_shapes(self, load):
        engine = load(identity(TensorProto.FLOAT, []))
        assert engine.io.inputs[0].shape == ()
        assert engine.run({"x": np.array(2.5, np.float32)})["y"] == np.float32(2.5)
        assert load(identity(TensorProto.FLOAT, [2, None])).io.inputs[0].shape == (2, -1)

    @pytest.mark.parametrize(
        "inputs",
        [
            {},
            {"y": X},
            {"x": X.astype(np.float64)},
            {"x": X[:, :3]},
            {"x": X[0]},
            {"x": X.astype("U")},
        ],
    )
    def test_what_the_model_cannot_take_is_an_inference_failure(self, load, inputs):
        with pytest.raises(InferenceFailed) as caught:
            load(affine(), "digits").run(inputs)
        assert caught.value.fields["name"] == "digits"

    def test_a_failing_kernel_is_an_inference_failure_and_the_engine_goes_on(self, load):
        reshape = build(
            [helper.make_node("Reshape", ["x", "s"], ["y"])],
            [("x", TensorProto.FLOAT, ["N"]), ("s", TensorProto.INT64, [1])],
            [("y", TensorProto.FLOAT, ["M"])],
        )
        engine = load(reshape)
        ones = np.ones(4, np.float32)
        with pytest.raises(InferenceFailed):
            engine.run({"x": ones, "s": np.array([3])})
        assert engine.run({"x": ones, "s": np.array([4])})["y"].shape == (4,)

    def test_runs_from_several_threads_at_once(self, load):
        engine = load(affine())
        wrong: list[int] = []

        def work(value):
            x = np.full((1, 4), value, np.float32)
            wrong.extend(n for n in range(50) if not (engine.run({"x": x})["scores"] == affine_answer(x)).all())

        threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert wrong == []

    def test_after_close_a_run_is_refused(self, load):
        engine = load(affine())
        engine.close()
        engine.close()
        with pytest.raises(InferenceFailed):
            engine.run({"x": X})

    def test_it_says_what_it_is(self, load):
        name, version = load(affine()).description.split()
        assert name
        assert version[0].isdigit()

    @pytest.mark.parametrize("data", [b"", b"not a model", b"\x80\x04pickle", affine()[:-20], b"\x08\x08" * 50])
    def test_rubbish_is_refused_as_a_model_file(self, load, data):
        with pytest.raises(ModelFileError):
            load(data)
