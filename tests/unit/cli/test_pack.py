# SPDX-License-Identifier: Apache-2.0
import json
import os

import click
import numpy as np
import pytest

from skerry.bundle.archive import open_archive
from skerry.bundle.blob import content
from skerry.bundle.manifest import Io, TensorSpec
from skerry.cli.pack import split_outputs, write_bundle
from skerry.cli.packing import PackOptions, pack_project
from skerry.cli.program import run
from skerry.cli.project_file import load
from skerry.cli.render import Output
from skerry.cli.samples import make_up_inputs, read_inputs
from skerry.errors import (
    ArchiveRefused,
    ExecutableFormat,
    InputMissing,
    ManifestError,
    ModelFileError,
    ProjectFileError,
    SelfTestFailed,
    StorageError,
)
from skerry.runtime.onnx import OnnxEngine
from skerry.runtime.selftest import decode_samples
from support import bundles
from support.models import linear_classifier
from support.projects import write_project


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path / "project")


def pack(folder, **options):
    return pack_project(load(folder), PackOptions(**options))


def test_a_project_becomes_a_bundle(project):
    packed = pack(project)
    config = packed.bundle.config
    assert (config.name, config.version, config.line, config.release_seq) == ("iris", "1.0.0", "plants", 2)
    assert [(v.name, v.preference, v.model) for v in config.variants] == [
        ("fp32", 0, "models/fp32.onnx"),
        ("other", 1, "models/other.onnx"),
    ]
    assert config.variants[1].needs.instructions == ("vnni",)
    assert {file.path: file.kind for file in config.files} == {
        "docs/CARD.md": "doc",
        "ml-bom.cdx.json": "ml-bom",
        "models/fp32.onnx": "weight",
        "models/other.onnx": "weight",
        "self-test.npz": "self-test",
    }
    assert content(packed.bundle.file("models/fp32.onnx")) == linear_classifier()
    assert config.unsafe == ()


def test_golden_outputs_are_what_the_reference_answers(project):
    packed = pack(project)
    samples = decode_samples(content(packed.bundle.file("self-test.npz")))
    assert samples.count == packed.bundle.config.self_test.samples == 12
    assert samples.inputs["x"].shape == (12, 4)
    assert -1 <= samples.inputs["x"].min() < -0.5 < 0.5 < samples.inputs["x"].max() <= 1
    engine = OnnxEngine.load(linear_classifier())
    np.testing.assert_array_equal(samples.outputs["label"], engine.run({"x": samples.inputs["x"]})["label"])


def test_made_up_inputs_are_announced_and_real_ones_are_taken_as_they_are(tmp_path):
    assert any("made up" in warning for warning in pack(write_project(tmp_path / "a")).warnings)
    rows = np.linspace(-3, 3, 80).reshape(20, 4)
    packed = pack(write_project(tmp_path / "b", samples=rows))
    assert packed.warnings == ()
    samples = decode_samples(content(packed.bundle.file("self-test.npz")))
    np.testing.assert_array_equal(samples.inputs["x"], rows[:12].astype(np.float32))


def test_the_io_is_the_models_with_what_the_project_adds(project):
    io = pack(project).bundle.config.io
    assert io.inputs == (TensorSpec(name="x", dtype="FP32", shape=(-1, 4), range=(-1, 1)),)
    assert [(spec.name, spec.dtype, spec.labels) for spec in io.outputs] == [
        ("scores", "FP32", ()),
        ("label", "INT64", ("a", "b", "c")),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: x, dtype", "name: y, dtype", "16: spec.io.inputs[0].name: the model has x, not y"),
        ("dtype: float32", "dtype: FP16", "16: spec.io.inputs[0]: x is FP32 in the model, not FP16"),
        ("shape: [-1, 4]", "shape: [-1, 5]", "16: spec.io.inputs[0]: x has shape [-1, 4] in the model, not [-1, 5]"),
        ("shape: [-1, 4]", "shape: [4]", "16: spec.io.inputs[0]: x has shape"),
    ],
)
def test_an_io_that_contradicts_the_model_has_its_line(project, old, new, message):
    file = project / "skerry.yaml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ProjectFileError) as caught:
        pack(project)
    assert message in str(caught.value)


def test_packing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_bundle(pack(write_project(tmp_path / name)).bundle, tmp_path / f"{name}.skb")
    assert (tmp_path / "a.skb").read_bytes() == (tmp_path / "b.skb").read_bytes()


def test_measured_latency_stays_out_of_the_bundle_unless_asked_for(project):
    assert [v.latency_ms for v in pack(project).bundle.config.variants] == [None, None]
    recorded = pack(project, record_latency=True).bundle.config.variants
    assert all(v.latency_ms is not None and v.latency_ms >= 0 for v in recorded)


def test_a_variant_that_fails_its_self_test_does_not_pack(tmp_path):
    folder = write_project(tmp_path / "project", other=linear_classifier(seed=2))
    with pytest.raises(SelfTestFailed, match="variant other"):
        pack(folder)


def test_unless_somebody_says_unsafe_and_the_bundle_remembers(tmp_path):
    folder = write_project(tmp_path / "project", other=linear_classifier(seed=2))
    packed = pack(folder, unsafe=True)
    assert packed.bundle.config.unsafe == ("self-test:other",)
    assert [report.passed for report in packed.variants] == [True, False]
    assert any("FAILS" in warning for warning in packed.warnings)


def test_a_tolerance_widened_knowingly_lets_it_pass(tmp_path):
    folder = write_project(
        tmp_path / "project", other=linear_classifier(seed=2), tolerance="{atol: 100, agreement: 0.01}"
    )
    assert pack(folder).bundle.config.unsafe == ()


def test_a_variant_with_another_io_never_packs(tmp_path):
    folder = write_project(
        tmp_path / "project", other=linear_classifier(inputs=4, classes=3).replace(b"scores", b"scored")
    )
    with pytest.raises(SelfTestFailed, match="its outputs are scored:FP32"):
        pack(folder, unsafe=True)


def test_over_budget_is_said_loudly(tmp_path):
    folder = write_project(tmp_path / "project", more="latency_budget_ms: 0.000001")
    assert sum("its budget is 1e-06 ms" in warning for warning in pack(folder).warnings) == 2


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("fp32.onnx", b"not a model", ModelFileError),
        ("fp32.onnx", b"\x7fELF....", ExecutableFormat),
        ("fp32.onnx", b"\x80\x04\x95....", ExecutableFormat),
        ("samples.npz", b"not an archive", ProjectFileError),
        ("CARD.md", b"#!/bin/sh\n", ExecutableFormat),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, name, data, error):
    folder = write_project(tmp_path / "project", samples=np.zeros((4, 4)))
    (folder / name).write_bytes(data)
    with pytest.raises(error):
        pack(folder)


@pytest.mark.parametrize("name", ["fp32.onnx", "other.onnx", "samples.npz", "CARD.md"])
def test_files_that_are_not_there(tmp_path, name):
    folder = write_project(tmp_path / "project", samples=np.zeros((4, 4)))
    (folder / name).unlink()
    with pytest.raises(InputMissing):
        pack(folder)


def test_a_model_named_as_code_is_refused_before_it_is_opened(project):
    (project / "fp32.onnx").rename(project / "fp32.pt")
    file = project / "skerry.yaml"
    file.write_text(file.read_text().replace("fp32.onnx", "fp32.pt"))
    with pytest.raises(ArchiveRefused):
        pack(project)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 5)), "skerry.yaml:18: spec.self_test.samples: "),
        (np.zeros((0, 4)), "skerry.yaml:18: spec.self_test.samples: "),
        (np.array(["text"] * 4), "x is <U4, the model takes FP32"),
    ],
)
def test_samples_the_model_cannot_take_are_a_mistake_of_the_project(tmp_path, samples, message):
    with pytest.raises(ProjectFileError) as caught:
        pack(write_project(tmp_path / "project", samples=samples))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("results: [label]", "results: [nope]", "skerry.yaml:19: spec.egress: nope is not an output"),
        ("precision: int8", 'precision: "INT 8"', "skerry.yaml:10: spec.variants[1]: precision 'INT 8' is not a word"),
        ("tolerance: {}", "tolerance: {atol: .nan}", "skerry.yaml:14: spec.variants[1].tolerance: atol and rtol"),
        (
            "learning: supervised",
            "created: yesterday",
            "skerry.yaml:22: spec.model_card: $.metadata.timestamp: 'yester",
        ),
    ],
)
def test_a_mistake_only_the_bundle_shows_has_its_place_in_the_project(project, old, new, message):
    file = project / "skerry.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ProjectFileError) as caught:
        pack(project)
    assert message in str(caught.value)


# --- samples -------------------------------------------------------------------------------------------------------------

EVERY_KIND = Io(
    inputs=(
        TensorSpec(name="image", dtype="UINT8", shape=(1, 3, 8, 8)),
        TensorSpec(name="small", dtype="INT64", shape=(-1,), range=(3, 5)),
        TensorSpec(name="flag", dtype="BOOL", shape=(-1, 2)),
        TensorSpec(name="text", dtype="BYTES", shape=(-1, 1)),
        TensorSpec(name="half", dtype="FP16", shape=(4, -1)),
    ),
    outputs=(),
)


def test_made_up_inputs_fit_their_declaration_and_are_the_same_for_ever():
    inputs = make_up_inputs(EVERY_KIND, 64)
    assert {name: (array.shape, array.dtype.name) for name, array in inputs.items()} == {
        "image": ((64, 3, 8, 8), "uint8"),
        "small": ((64,), "int64"),
        "flag": ((64, 2), "bool"),
        "text": ((64, 1), "object"),
        "half": ((64, 4, 1), "float16"),
    }
    assert set(inputs["small"].tolist()) == {3, 4, 5}
    assert inputs["image"].min() < 10
    assert inputs["image"].max() > 245
    assert inputs["small"][:8].tolist() == [4, 5, 3, 4, 5, 3, 3, 5]


IMAGE = Io(inputs=(TensorSpec(name="image", dtype="FP32", shape=(1, 3, 352, 352)),), outputs=())


def test_made_up_inputs_do_not_outweigh_the_model():
    """A picture has 1.5 MB: 16 of noise would make a bundle of 25 MB for every device."""
    assert len(make_up_inputs(IMAGE, None)["image"]) == 1
    assert len(make_up_inputs(IMAGE, 5)["image"]) == 5


@pytest.mark.parametrize(("shape", "count"), [((1, 3, 352, 352), 1_000_000), ((1, 1_000_000, 1_000_000), None)])
def test_more_made_up_inputs_than_a_bundle_may_hold_are_refused_before_they_are_made(shape, count):
    io = Io(inputs=(TensorSpec(name="image", dtype="FP32", shape=shape),), outputs=())
    with pytest.raises(ManifestError, match="made-up"):
        make_up_inputs(io, count)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"y": np.zeros((2, 4))}, "no array for input x"),
        ({"x": np.full((2, 4), 1.5)}, None),
        ({"in.x": np.zeros((2, 4), np.int64)}, None),
        ({"x": np.array(["a", "b"])}, "x"),
        ({"x": np.zeros((2, 4), complex)}, "x is complex128"),
        ({"x": np.array([2**53 + 1] * 2, np.int64)}, "x is int64"),
        ({"x": np.float32(1)}, "x is float32"),
    ],
)
def test_given_inputs_are_taken_only_without_loss(tmp_path, arrays, problem):
    np.savez(tmp_path / "s.npz", **arrays)
    io = Io(inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 4)),), outputs=())
    if problem is None:
        assert read_inputs(tmp_path / "s.npz", io, None)["x"].dtype == np.float32
    else:
        with pytest.raises(ManifestError, match=problem):
            read_inputs(tmp_path / "s.npz", io, None)


def test_objects_among_the_samples_are_not_opened(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ManifestError):
        read_inputs(tmp_path / "s.npz", Io(inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1,)),), outputs=()), None)


# --- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pack_writes_a_bundle_that_opens(here, capsys):
    assert run(["pack", "project"]) == 0
    bundle = open_archive(here / "iris-1.0.0.skb")
    out = capsys.readouterr().out
    assert bundle.digest in out
    assert "iris-1.0.0.skb" in out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["VARIANT", "fp32", "other"]


def test_pack_takes_a_file_and_a_form_from_o(here, capsys):
    assert run(["pack", "project/skerry.yaml", "-o", "out.skb", "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["digest"] == open_archive(here / "out.skb").digest
    assert printed["file"] == "out.skb"
    assert [variant["passed"] for variant in printed["variants"]] == [True, True]


def test_pack_replaces_nothing_without_force(here, capsys):
    (here / "a.skb").write_text("mine")
    assert run(["pack", "project", "-o", "a.skb"]) == 1
    assert "SKY-7006" in capsys.readouterr().err
    assert (here / "a.skb").read_text() == "mine"
    assert run(["pack", "project", "-o", "a.skb", "--force"]) == 0
    assert open_archive(here / "a.skb").config.name == "iris"


def test_pack_dry_run_writes_nothing(here, capsys):
    assert run(["pack", "project", "--dry-run"]) == 0
    assert "dry run" in capsys.readouterr().out
    assert [path.name for path in here.iterdir()] == ["project"]


def test_pack_that_fails_leaves_no_file(here, capsys):
    (here / "project" / "other.onnx").write_bytes(linear_classifier(seed=2))
    assert run(["pack", "project", "-o", "a.skb"]) == 3
    assert "SKY-1005" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["project"]
    assert run(["pack", "project", "-o", "a.skb", "--unsafe"]) == 0


@pytest.mark.parametrize("outputs", [("json", "yaml"), ("a.skb", "b.skb"), ("Json",), ("wide",), ("/dev/null",)])
def test_what_o_cannot_mean_is_refused(outputs):
    with pytest.raises(click.UsageError):
        split_outputs(outputs)


def test_o_by_itself():
    assert split_outputs(()) == (None, Output.TABLE)


def test_a_bundle_is_written_into_a_folder_that_is_made(tmp_path):
    write_bundle(bundles.bundle(), tmp_path / "dist" / "a.skb")
    assert open_archive(tmp_path / "dist" / "a.skb").config.name == "digits"


def test_what_a_killed_pack_left_behind_stops_nobody(tmp_path):
    """Process ids come again at once in a container."""
    (tmp_path / f".a.skb.{os.getpid()}.partial").write_text("half")
    write_bundle(bundles.bundle(), tmp_path / "a.skb")
    assert open_archive(tmp_path / "a.skb").config.name == "digits"


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "folder.skb"
    target.mkdir()
    with pytest.raises(StorageError):
        write_bundle(bundles.bundle(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.skb"]
