# SPDX-License-Identifier: Apache-2.0
import io
import zipfile

import numpy as np
import pytest
from onnx import TensorProto

from contracts.engine.models import affine, affine_answer, classifier, identity
from skerry.bundle.manifest import Tolerance
from skerry.errors import ManifestError
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.selftest import agrees, decode_samples, encode_samples, record, run_selftest

X = np.arange(20, dtype=np.float32).reshape(5, 4)


def samples(engine, inputs):
    return encode_samples(inputs, record(engine, inputs))


def test_a_model_agrees_with_its_own_recording():
    engine = OnnxEngine.load(classifier())
    outcome = run_selftest(engine, samples(engine, {"x": X}), Tolerance())
    assert (outcome.passed, outcome.samples, outcome.agreement, outcome.problem) == (True, 5, 1.0, "")
    assert outcome.latency_p50_ms > 0


def test_a_wrong_model_fails_and_says_which_output_and_how_often():
    golden = samples(OnnxEngine.load(affine()), {"x": X})
    outcome = run_selftest(OnnxEngine.load(affine(bias=0.5)), golden, Tolerance())
    assert not outcome.passed
    assert outcome.problem == "output scores: 0 of 5 samples agree, 1 needed"


def test_top1_looks_only_at_the_largest_value():
    golden = samples(OnnxEngine.load(affine()), {"x": X})
    assert run_selftest(OnnxEngine.load(affine(bias=0.5)), golden, Tolerance(top1=True)).passed


def test_agreement_is_the_share_of_samples_that_must_match():
    outputs = {"scores": affine_answer(X)}
    outputs["scores"][3] += 1
    golden = encode_samples({"x": X}, outputs)
    engine = OnnxEngine.load(affine())
    assert run_selftest(engine, golden, Tolerance(agreement=0.8)).passed
    assert not run_selftest(engine, golden, Tolerance(agreement=0.81)).passed


def test_integer_outputs_must_be_equal_whatever_the_tolerance():
    engine = OnnxEngine.load(classifier())
    outputs = record(engine, {"x": X})
    outputs["label"] = outputs["label"] + 1
    outcome = run_selftest(engine, encode_samples({"x": X}, outputs), Tolerance(atol=9, rtol=9, top1=True))
    assert outcome.problem == "output label: 0 of 5 samples agree, 1 needed"


def test_models_without_a_batch_axis_and_with_strings():
    engine = OnnxEngine.load(identity(TensorProto.STRING, [2]))
    text = np.array([[b"a", b""], ["grüße".encode(), b"bb"]], dtype=object)
    golden = samples(engine, {"x": text})
    assert run_selftest(engine, golden, Tolerance()).passed
    assert decode_samples(golden).outputs["y"].tolist() == text.tolist()


def test_same_samples_same_bytes():
    outputs = {"scores": affine_answer(X), "a": X}
    first = encode_samples({"x": X}, outputs)
    assert first == encode_samples({"x": np.asfortranarray(X.astype(">f4"))}, dict(reversed(outputs.items())))
    assert zipfile.ZipFile(io.BytesIO(first)).getinfo("in.x.npy").date_time == (1980, 1, 1, 0, 0, 0)


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def header(text):
    """An array file with this header and nothing behind it."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


NOTHING = "{'descr': 'S0', 'fortran_order': False, 'shape': (99999999999,)}"  # as many values as one likes in no bytes


def damaged_deflate():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("in.x.npy", npy(X))
        start = buffer.tell() - file.getinfo("in.x.npy").compress_size
    content = bytearray(buffer.getvalue())
    content[start] |= 7  # a block type that does not exist
    return bytes(content)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a zip file"),
        (b"PK\x03\x04rubbish", "not a zip file"),
        (archive(**{"in.x.npy": npy(X)}), "at least one input and one output"),
        (archive(**{"in.x.npy": npy(X), "out.y.npy": npy(X[:2])}), "differ in their number"),
        (archive(**{"in.x.npy": npy(X[:0]), "out.y.npy": npy(X[:0])}), "have none"),
        (archive(**{"in.x.npy": npy(np.float32(1)), "out.y.npy": npy(X)}), "differ in their number"),
        (archive(**{"in.x.npy": npy(np.array([{}])), "out.y.npy": npy(X)}), "not accepted"),
        (archive(**{"in.x.npy": npy(X)[:-1], "out.y.npy": npy(X)}), "size does not match"),
        (archive(**{"in.x.npy": b"\x93NUMPY\x09\x00rubbish", "out.y.npy": npy(X)}), "npy version"),
        (archive(**{"in.x.npy": b"rubbish!", "out.y.npy": npy(X)}), "magic"),
        (archive(**{"in.x.npy": header("{'descr':"), "out.y.npy": npy(X)}), "EOF"),
        (archive(**{"in.x.npy": header("  x\n y"), "out.y.npy": npy(X)}), "indent"),
        (archive(**{"in.x.npy": header(NOTHING), "out.y.npy": npy(X)}), "not accepted"),
        (damaged_deflate(), "decompressing"),
        (archive(**{"evil.py": b"", "out.y.npy": npy(X)}), "unexpected entry evil.py"),
        (archive(**{f"in.{n}.npy": b"" for n in range(70)}), "more than 64 arrays"),
    ],
)
def test_a_bad_sample_file_is_refused_and_fails_the_test_without_raising(data, problem):
    with pytest.raises(ManifestError, match=problem):
        decode_samples(data)
    outcome = run_selftest(OnnxEngine.load(affine()), data, Tolerance())
    assert not outcome.passed
    assert problem in outcome.problem


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"y": X}, {"scores": X[:, :3]}),
        ({"x": X.astype(np.float64)}, {"scores": X[:, :3]}),
        ({"x": X[:, :2]}, {"scores": X[:, :3]}),
        ({"x": X}, {"other": X[:, :3]}),
        ({"x": X}, {"scores": X}),
    ],
)
def test_samples_of_another_model_fail(inputs, outputs):
    outcome = run_selftest(OnnxEngine.load(affine()), encode_samples(inputs, outputs), Tolerance())
    assert not outcome.passed
    assert outcome.problem.startswith("bundle manifest is invalid: self-test file")


def test_a_string_that_numpy_would_shorten_is_not_stored():
    with pytest.raises(ManifestError, match="zero byte"):
        encode_samples({"x": np.array([b"a\0"], dtype=object)}, {"y": X[:1]})


NAN = float("nan")


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        ([1.0, 2.0], [1.0, 2.00001], True),
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, NAN], [1.0, 2.0], False),
        ([float("inf")], [float("inf")], True),
        ([float("inf")], [1e30], False),
        ([1.0], [1.0, 2.0], False),
    ],
)
def test_when_two_answers_agree(actual, expected, same):
    assert agrees(np.array(actual, np.float32), np.array(expected, np.float32), Tolerance()) is same


def test_a_nan_never_wins_a_top1_comparison():
    broken = np.array([[NAN, 1.0]], np.float32)
    assert not agrees(broken, np.array([[2.0, 1.0]], np.float32), Tolerance(top1=True))
