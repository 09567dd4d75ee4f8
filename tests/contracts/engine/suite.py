# SPDX-License-Identifier: Apache-2.0
"""What every engine must do.

Subclass EngineContract with a fixture `load(model: bytes, name="model") -> Engine` and a fixture `build`: builders of the
same small models in the engine's own format: affine, classifier, identity(datatype, shape), reshape.
"""

import threading

import numpy as np
import pytest

from contracts.engine.models import affine_answer
from skerry.bundle.manifest import TensorSpec
from skerry.errors import InferenceFailed, ModelFileError
from skerry.runtime.datatypes import NUMPY

KINDS = sorted(NUMPY.keys() - {"BYTES", "BF16"})
X = np.array([[1, 2, 3, 4], [5, 6, 7, 9]], np.float32)


class EngineContract:
    def test_io_in_the_models_order_and_protocol_words(self, load, build):
        io = load(build.classifier()).io
        assert io.inputs == (TensorSpec(name="x", dtype="FP32", shape=(-1, 4)),)
        assert io.outputs == (
            TensorSpec(name="scores", dtype="FP32", shape=(-1, 3)),
            TensorSpec(name="label", dtype="INT64", shape=(-1,)),
        )

    def test_run_answers_every_output_in_order(self, load, build):
        answer = load(build.classifier()).run({"x": X})
        assert list(answer) == ["scores", "label"]
        np.testing.assert_array_equal(answer["scores"], affine_answer(X))
        np.testing.assert_array_equal(answer["label"], affine_answer(X).argmax(1))
        assert answer["scores"].flags.c_contiguous

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_datatype_goes_through_unchanged(self, load, build, kind):
        engine, dtype = load(build.identity(kind)), NUMPY[kind]
        assert (engine.io.inputs[0].dtype, engine.io.outputs[0].dtype) == (kind, kind)
        values: np.ndarray = np.array([[0, 1], [1, 0]], dtype)
        answer = engine.run({"x": values})["y"]
        assert answer.dtype == dtype
        np.testing.assert_array_equal(answer, values)

    def test_strings_are_bytes_both_ways(self, load, build):
        engine = load(build.identity("BYTES"))
        values = np.array([[b"", "grüße".encode()]], dtype=object)
        answer = engine.run({"x": values})["y"]
        assert answer.dtype == object
        assert answer.tolist() == values.tolist()
        assert type(answer[0, 1]) is bytes

    def test_inputs_may_be_read_only_and_are_not_kept(self, load, build):
        engine = load(build.identity("FP32"))
        body = bytearray(np.ones(4, np.float32).tobytes())
        view = np.frombuffer(memoryview(body).toreadonly(), np.float32).reshape(2, 2)
        answer = engine.run({"x": view})["y"]
        body[:] = bytes(16)
        assert answer.tolist() == [[1, 1], [1, 1]]

    def test_zero_rows_give_zero_rows(self, load, build):
        assert load(build.affine()).run({"x": np.empty((0, 4), np.float32)})["scores"].shape == (0, 3)

    def test_scalars_and_fixed_shapes(self, load, build):
        engine = load(build.identity("FP32", []))
        assert engine.io.inputs[0].shape == ()
        assert engine.run({"x": np.array(2.5, np.float32)})["y"] == np.float32(2.5)
        assert load(build.identity("FP32", [2, -1])).io.inputs[0].shape == (2, -1)

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
    def test_what_the_model_cannot_take_is_an_inference_failure(self, load, build, inputs):
        with pytest.raises(InferenceFailed) as caught:
            load(build.affine(), "digits").run(inputs)
        assert caught.value.fields["name"] == "digits"

    def test_a_failing_kernel_is_an_inference_failure_and_the_engine_goes_on(self, load, build):
        engine = load(build.reshape())
        ones = np.ones(4, np.float32)
        with pytest.raises(InferenceFailed):
            engine.run({"x": ones, "s": np.array([3], np.int32)})
        assert engine.run({"x": ones, "s": np.array([4], np.int32)})["y"].shape == (4,)

    def test_runs_from_several_threads_at_once(self, load, build):
        engine = load(build.affine())
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

    def test_after_close_a_run_is_refused(self, load, build):
        engine = load(build.affine())
        engine.close()
        engine.close()
        with pytest.raises(InferenceFailed):
            engine.run({"x": X})

    def test_it_says_what_it_is(self, load, build):
        name, version = load(build.affine()).description.split()
        assert name
        assert version[0].isdigit()

    @pytest.mark.parametrize("data", [b"", b"not a model", b"\x80\x04pickle", b"\x08\x08" * 50])
    def test_rubbish_is_refused_as_a_model_file(self, load, data):
        with pytest.raises(ModelFileError):
            load(data)

    def test_a_file_cut_short_is_refused_as_a_model_file(self, load, build):
        with pytest.raises(ModelFileError):
            load(build.affine()[:-20])
