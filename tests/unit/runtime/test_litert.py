# SPDX-License-Identifier: Apache-2.0
import threading
from pathlib import Path

import numpy as np
import pytest

from contracts.engine import litert_models
from contracts.engine.models import affine_answer
from skerry.bundle.manifest import TensorSpec
from skerry.errors import InferenceFailed, ManifestError, ModelFileError
from skerry.runtime import engines
from skerry.runtime.litert import LiteRtEngine, LiteRtSettings

TINY = Path(__file__).resolve().parents[4] / "shared" / "data" / "models" / "mlperf_tiny"
X = np.array([[1, 2, 3, 4], [5, 6, 7, 9]], np.float32)


def test_quantised_inputs_and_outputs_are_their_raw_integers():
    engine = LiteRtEngine.load(litert_models.quantized())
    assert [spec.dtype for spec in (*engine.io.inputs, *engine.io.outputs)] == ["INT8", "INT8"]
    answer = engine.run({"x": X.astype(np.int8)})["scores"]
    assert answer.dtype == np.int8
    assert answer.shape == (2, 3)


def test_batches_of_any_length_one_after_another():
    engine = LiteRtEngine.load(litert_models.affine(), settings=LiteRtSettings(instances=2))
    for rows in (1, 5, 2, 5, 0, 1, 7):
        x = np.full((rows, 4), rows, np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["scores"], affine_answer(x))


def test_more_callers_than_interpreters_all_get_their_own_answers():
    engine = LiteRtEngine.load(litert_models.affine(), settings=LiteRtSettings(instances=2))
    wrong: list[int] = []

    def work(value):
        for rows in range(1, 40):
            x = np.full((rows % 3 + 1, 4), value, np.float32)
            if not (engine.run({"x": x})["scores"] == affine_answer(x)).all():
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []


def test_a_run_that_failed_takes_no_interpreter_away():
    engine = LiteRtEngine.load(litert_models.affine(), settings=LiteRtSettings(instances=1))
    for _ in range(3):
        with pytest.raises(InferenceFailed):
            engine.run({"x": X[:, :3]})
    np.testing.assert_array_equal(engine.run({"x": X})["scores"], affine_answer(X))


def test_a_caller_that_waits_for_an_interpreter_is_refused_when_the_engine_is_closed():
    engine = LiteRtEngine.load(litert_models.affine(), settings=LiteRtSettings(instances=1))
    busy = engine._pool.take(((1, 4),))
    problems: list[str] = []

    def wait():
        try:
            engine.run({"x": X})
        except InferenceFailed as error:
            problems.append(str(error.fields["problem"]))

    waiting = threading.Thread(target=wait)
    waiting.start()
    engine.close()
    waiting.join(20)
    assert busy is not None
    assert problems == ["the engine is closed"]


def test_a_custom_operator_the_engine_has_not_got_is_named():
    with pytest.raises(ModelFileError, match="AudioSpectrogramOfOurs"):
        LiteRtEngine.load(litert_models.custom_operator())


def test_names_come_from_the_only_signature():
    engine = LiteRtEngine.load(litert_models.signed("features", "scores_of_all"))
    assert engine.io.inputs == (TensorSpec(name="features", dtype="FP32", shape=(-1, 4)),)
    assert list(engine.run({"features": X})) == ["scores_of_all"]


def test_which_engine_a_file_is_for_is_told_by_its_content(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(litert_models.affine())
    runtime, io = engines.inspect(path)
    assert runtime == "litert"
    assert io.inputs == (TensorSpec(name="x", dtype="FP32", shape=(-1, 4)),)


def test_a_runtime_nobody_has_is_refused():
    with pytest.raises(ManifestError, match="there is no runtime tensorrt"):
        engines.load("tensorrt", b"", name="m", path="m.plan")


@pytest.mark.skipif(not TINY.is_dir(), reason="no shared data here")
@pytest.mark.parametrize("path", sorted(TINY.glob("*.tflite")), ids=lambda path: path.stem)
def test_real_models_run_alone_and_in_a_batch(path):
    engine = LiteRtEngine.load(path.read_bytes(), path=path.name)
    (spec,) = engine.io.inputs
    assert spec.shape[0] == -1
    random = np.random.default_rng(3)
    x = (random.standard_normal((3, *spec.shape[1:])) * 20).astype({"INT8": np.int8, "FP32": np.float32}[spec.dtype])
    batch = engine.run({spec.name: x})
    for index in range(3):
        alone = engine.run({spec.name: x[index : index + 1]})
        for name, value in alone.items():
            np.testing.assert_allclose(batch[name][index], value[0], atol=1 if spec.dtype == "INT8" else 1e-3)
