# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.bundle.archive import open_archive
from skerry.bundle.manifest import Io, TensorSpec
from skerry.cli.init import project_name, quoted, scaffold
from skerry.cli.program import run
from skerry.cli.project_file import load, parse
from support.models import linear_classifier


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My Model_v2.onnx").write_bytes(linear_classifier())
    return tmp_path


def test_init_reads_the_model(here, capsys):
    assert run(["init", "My Model_v2.onnx"]) == 0
    project = load(here).project
    assert project.metadata.name == "my-model-v2"
    assert [(t.name, t.dtype, t.shape) for t in project.spec.io.inputs] == [("x", "FP32", (-1, 4))]
    assert [(t.name, t.dtype, t.shape) for t in project.spec.io.outputs] == [
        ("scores", "FP32", (-1, 3)),
        ("label", "INT64", (-1,)),
    ]
    assert "x -> scores, label" in capsys.readouterr().out


def test_what_init_writes_packs_as_it_is(here):
    assert run(["init", "My Model_v2.onnx"]) == 0
    assert run(["pack"]) == 0
    assert open_archive(here / "my-model-v2-0.1.0.skb").config.self_test.samples == 16


def test_init_into_another_folder_finds_the_model_from_there(here):
    assert run(["init", "My Model_v2.onnx", "-o", "deep/project"]) == 0
    assert load(here / "deep/project").project.spec.variants[0].file == "../../My Model_v2.onnx"
    assert run(["pack", "deep/project", "--dry-run"]) == 0


def test_init_replaces_nothing_without_force(here, capsys):
    (here / "skerry.yaml").write_text("mine")
    assert run(["init", "My Model_v2.onnx"]) == 1
    assert "SKY-7006" in capsys.readouterr().err
    assert (here / "skerry.yaml").read_text() == "mine"
    assert run(["init", "My Model_v2.onnx", "--force"]) == 0
    assert load(here).project.kind == "Model"


@pytest.mark.parametrize(("name", "code"), [("none.onnx", "SKY-7007"), ("bad.onnx", "SKY-1002")])
def test_init_without_a_usable_model_writes_nothing(here, capsys, name, code):
    (here / "bad.onnx").write_text("text")
    assert run(["init", name]) != 0
    assert code in capsys.readouterr().err
    assert not (here / "skerry.yaml").exists()


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("My Model_v2", "my-model-v2"),
        ("a", "a"),
        ("---", "model"),
        ("Modèle 1", "modele-1"),
        ("你", "model"),
        ("x" * 70, "x" * 63),
        ("-a-", "a"),
    ],
)
def test_names(stem, name):
    assert project_name(stem) == name


def test_a_file_name_stays_readable():
    assert quoted("Modèle 你.onnx") == '"Modèle 你.onnx"'
    assert quoted("a\x85b") == '"a\\u0085b"'


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "input: 1",
        "no",
        "true",
        "12",
        "a b",
        "[x]",
        "images:0",
        'q"q',
        "#",
        "ü",
        "serving/x",
        "~",
        "a\x85b",
        "a\u2028b",
        "a\tb",
        "\U0001f600",
    ],
)
def test_any_tensor_name_survives(name):
    io = Io(
        inputs=(TensorSpec(name=name, dtype="FP32", shape=()),),
        outputs=(TensorSpec(name=name, dtype="BOOL", shape=(1,)),),
    )
    from pathlib import Path

    project = parse(scaffold(io, name="m", file=f"{name}.onnx"), Path("skerry.yaml")).project
    assert project.spec.io.inputs[0].name == name
    assert project.spec.variants[0].file == f"{name}.onnx"


def test_a_model_without_inputs():
    from pathlib import Path

    io = Io(inputs=(), outputs=(TensorSpec(name="y", dtype="FP32", shape=(1,)),))
    assert parse(scaffold(io, name="m", file="m.onnx"), Path("skerry.yaml")).project.spec.io.inputs == ()


def test_plain_words_stay_plain():
    assert quoted("model.onnx") == "model.onnx"
    assert quoted("null") == '"null"'
