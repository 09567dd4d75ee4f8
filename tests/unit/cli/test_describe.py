# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from skerry.cli.describe import lines_of
from skerry.cli.pack import write_bundle
from skerry.cli.packing import pack_project
from skerry.cli.program import run
from skerry.cli.project_file import load
from support import bundles
from support.projects import write_project


@pytest.fixture
def skb(tmp_path):
    path = tmp_path / "iris.skb"
    write_bundle(pack_project(load(write_project(tmp_path / "project"))).bundle, path)
    return path


def test_what_a_person_wants_to_see(skb, capsys):
    assert run(["describe", str(skb)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for fact in (
        "Bundle: iris:1.0.0",
        "Task: classification",
        "Line: plants",
        "Release: 2",
        "Licences: MIT",
        "Leaves the device: label (at most 16 values each)",
        "Self-test: 12 samples",
        "Evidence: ml-bom.cdx.json",
        "x FP32[any, 4] -1 to 1",
        "label INT64[any] 3 labels",
        "other int8 onnxruntime",
        "vnni 100%, within 0.0001 + 0.001 x",
        "models/fp32.onnx weight",
    ):
        assert fact in text


def test_describe_as_json_is_the_whole_config(skb, capsys):
    assert run(["describe", str(skb), "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["config"]["schema"] == "skerry/bundle/v1"
    assert printed["digest"].startswith("sha256:")


def test_the_most_preferred_variant_comes_first():
    lines = lines_of(bundles.bundle())
    assert lines.index(next(line for line in lines if line.startswith("  int8"))) < lines.index(
        next(line for line in lines if line.startswith("  fp32"))
    )
    assert any("Leaves the device" in line and "nothing" in line for line in lines)


def test_text_from_a_bundle_cannot_drive_the_terminal(tmp_path, capsys):
    write_bundle(bundles.bundle(description="\x1b[2Jgone\x07"), tmp_path / "a.skb")
    assert run(["describe", str(tmp_path / "a.skb")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert run(["describe", str(tmp_path / "none.skb")]) != 0
    assert "SKY-7007" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["press-1", "devices", "device/"])
def test_a_word_that_names_nothing_is_told_how(word, capsys):
    assert run(["describe", word]) == 2
    assert "TYPE/NAME" in capsys.readouterr().err


def test_words_that_name_a_thing_go_to_the_hub(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SKERRY_HUB", raising=False)
    assert run(["describe", "device/press-1"]) != 0
    assert "hub" in capsys.readouterr().err
