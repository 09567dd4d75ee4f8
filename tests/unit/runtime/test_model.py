# SPDX-License-Identifier: Apache-2.0
"""`skerry.Model`: a bundle or a file, run in this process."""

import shutil
import subprocess
import sys
import threading

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

import skerry
from acceptance.runner_harness import write_bundle
from contracts.engine.models import affine, affine_answer, build
from skerry import errors
from skerry.bundle import oci
from skerry.bundle.archive import write_archive
from skerry.bundle.blob import MemoryBlob
from skerry.bundle.manifest import BundleConfig, Needs, Tolerance

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "bundle", affine(), {"x": X})


@pytest.fixture
def archive(folder, tmp_path):
    """As `skerry pack` writes it, with a second variant that no machine has the engine for."""
    config = msgspec.json.decode((folder / "skerry.json").read_bytes(), type=BundleConfig)
    only = config.variants[0]
    variants = (
        only,
        msgspec.structs.replace(only, name="future", runtime="abacus", preference=9),
        msgspec.structs.replace(
            only, name="loose", tolerance=Tolerance(atol=1.0), needs=Needs(memory_mib=1 << 40), preference=5
        ),
    )
    files = {file.path: MemoryBlob((folder / file.path).read_bytes()) for file in config.files}
    bundle = oci.build(msgspec.structs.replace(config, variants=variants, line="demo"), files)
    path = tmp_path / "digits.skb"
    with path.open("wb") as out:
        write_archive(bundle, out)
    return path


def test_a_folder(folder):
    with skerry.Model(folder, self_test=True) as model:
        assert (model.name, model.version, model.variant) == ("digits", "1.0.0", "fp32")
        assert model.io.inputs[0].name == "x"
        assert model.engine.startswith("onnxruntime")
        for rows in (X, X[:1], X):
            assert np.array_equal(model.infer({"x": rows})["scores"], affine_answer(rows))


def test_an_archive_and_the_variant_a_device_would_take(archive):
    with skerry.Model(archive) as model:
        assert model.variant == "fp32"
        assert np.array_equal(model.infer({"x": X})["scores"], affine_answer(X))
        assert model.self_test().passed


def test_a_variant_by_name(archive):
    with skerry.Model(archive, "loose") as model:
        assert model.variant == "loose"
    with pytest.raises(errors.ManifestError):
        skerry.Model(archive, "future")
    with pytest.raises(errors.ManifestError, match="no variant nothing"):
        skerry.Model(archive, "nothing")


def test_no_variant_for_this_machine(folder, monkeypatch):
    config = (folder / "skerry.json").read_bytes()
    (folder / "skerry.json").write_bytes(config.replace(b'"runtime":"onnxruntime"', b'"runtime":"abacus"'))
    with pytest.raises(errors.NoVariantFits, match="no abacus engine"):
        skerry.Model(folder)


def test_a_bare_file(folder):
    with skerry.Model(folder / "model.onnx") as model:
        assert (model.name, model.version, model.variant) == ("model", "", "")
        assert np.array_equal(model.infer({"x": X})["scores"], affine_answer(X))
        with pytest.raises(errors.ManifestError):
            model.self_test()
    with pytest.raises(errors.ManifestError):
        skerry.Model(folder / "model.onnx", "fp32")


@pytest.mark.parametrize("name", ["model.onnx", "self-test.npz", "skerry.json"])
def test_a_bundle_that_was_altered_is_not_loaded(folder, name):
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(errors.ArtefactError):
        skerry.Model(folder)


def test_an_archive_that_was_altered_is_not_loaded(archive):
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(errors.ArtefactError):
        skerry.Model(archive)


def test_what_is_not_there(tmp_path):
    for name in ("x", "x.skb", "x.onnx"):
        with pytest.raises(errors.InputMissing):
            skerry.Model(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputMissing):
        skerry.Model(tmp_path / "empty")
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(errors.ModelFileError):
        skerry.Model(tmp_path / "noise.onnx")


def test_a_self_test_that_fails_is_an_error(folder, tmp_path):
    other = write_bundle(tmp_path / "other", affine(), {"x": X}, reference=affine(bias=1.0))
    skerry.Model(other).close()
    with pytest.raises(errors.SelfTestFailed):
        skerry.Model(other, self_test=True)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": X},
        {"x": X, "y": X},
        {"x": X.astype(np.float64)},
        {"x": X.astype(">f4")},
        {"x": X[:, :3]},
        {"x": X[0]},
        {"x": X.tolist()},
        {"x": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_inputs_the_model_does_not_take(folder, inputs, used):
    with skerry.Model(folder) as model:
        if used:
            model.infer({"x": X})
        with pytest.raises(errors.InferenceRequestInvalid):
            model.infer(inputs)


def test_texts(tmp_path):
    path = tmp_path / "t.onnx"
    path.write_bytes(
        build(
            [helper.make_node("Identity", ["t"], ["u"])],
            [("t", TensorProto.STRING, ["N"])],
            [("u", TensorProto.STRING, ["N"])],
        )
    )
    with skerry.Model(path) as model:
        for _ in range(2):
            assert model.infer({"t": np.array([b"a", "ü".encode()], dtype=object)})["u"].tolist() == [
                b"a",
                "ü".encode(),
            ]
            for wrong in ([1, 2], ["a", "b"]):
                with pytest.raises(errors.InferenceRequestInvalid):
                    model.infer({"t": np.array(wrong, dtype=object)})


def test_threads_share_a_model(folder):
    with skerry.Model(folder) as model:
        wrong: list[np.ndarray] = []

        def work(value):
            x = np.full((1, 4), value, np.float32)
            answers = [model.infer({"x": x})["scores"] for _ in range(200)]
            wrong.extend(answer for answer in answers if not np.array_equal(answer, affine_answer(x)))

        threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_a_closed_model_says_so(folder):
    model = skerry.Model(folder)
    model.close()
    model.close()
    with pytest.raises(errors.InferenceFailed):
        model.infer({"x": X})


def test_an_archives_folder_is_gone_again(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    with skerry.Model(archive):
        assert list((tmp_path / "tmp").iterdir()) == []
    shutil.rmtree(tmp_path / "tmp")


def test_importing_skerry_loads_neither_numpy_nor_an_engine():
    code = "import skerry, sys; print(sorted({'numpy', 'msgspec', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import skerry, sys; skerry.Client; print([m for m in sys.modules if m.startswith(('skerry.serve', 'onnxruntime', 'httptools', 'asyncio.base')) and not m.startswith('asyncio')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_skerry_has_not():
    with pytest.raises(AttributeError):
        getattr(skerry, "Nothing")  # noqa: B009 - a type checker knows that it is not there
