# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from skerry.bundle import oci
from skerry.bundle.blob import MemoryBlob
from skerry.bundle.mlbom import ML_BOM_PATH, ModelCard, ml_bom
from skerry.cli.pack import write_bundle
from skerry.cli.packing import PackOptions, pack_project
from skerry.cli.program import run
from skerry.cli.project_file import load
from support import bundles
from support.models import linear_classifier
from support.projects import write_project


@pytest.fixture
def skb(tmp_path):
    path = tmp_path / "iris.skb"
    write_bundle(pack_project(load(write_project(tmp_path / "project"))).bundle, path)
    return path


def rows(text: str) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in text.splitlines()[1:] if len(line.split()) > 2}


def test_a_good_bundle_passes_every_check(skb, capsys):
    assert run(["verify", str(skb), "--self-test"]) == 0
    assert rows(capsys.readouterr().out) == {
        "contents": "ok",
        "manifest": "ok",
        "ml-bom": "ok",
        "licences": "ok",
        "safety": "ok",
        "self-test": "ok",
    }


def test_verify_as_json(skb, capsys):
    assert run(["verify", str(skb), "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["name"], printed["version"]) == ("iris", "1.0.0")
    assert {check["result"] for check in printed["checks"]} == {"ok"}


def test_the_right_digest_may_be_asked_for(skb, capsys):
    run(["verify", str(skb), "-o", "json"])
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert run(["verify", str(skb), "--digest", digest]) == 0
    assert run(["verify", str(skb), "--digest", "sha256:" + "0" * 64]) == 1
    assert "SKY-1004" in capsys.readouterr().err
    assert run(["verify", str(skb), "--digest", "abc"]) == 2


def test_a_tampered_bundle_is_refused_with_its_code(skb, capsys):
    data = bytearray(skb.read_bytes())
    at = data.index(linear_classifier()[:40])
    data[at + 5] ^= 1
    skb.write_bytes(bytes(data))
    assert run(["verify", str(skb)]) == 1
    assert "error SKY-1004" in capsys.readouterr().err


def test_no_file_and_no_bundle(tmp_path, capsys):
    assert run(["verify", str(tmp_path / "none.skb")]) != 0
    assert "SKY-7007" in capsys.readouterr().err
    (tmp_path / "text.skb").write_text("text")
    assert run(["verify", str(tmp_path / "text.skb")]) == 1
    assert "SKY-1021" in capsys.readouterr().err


def test_an_unsafe_bundle_is_whole_but_says_so_and_fails_its_self_test(tmp_path, capsys):
    folder = write_project(tmp_path / "project", other=linear_classifier(seed=2))
    write_bundle(pack_project(load(folder), PackOptions(unsafe=True)).bundle, tmp_path / "a.skb")
    assert run(["verify", str(tmp_path / "a.skb")]) == 0
    assert rows(capsys.readouterr().out)["safety"] == "warning"
    assert run(["verify", str(tmp_path / "a.skb"), "--self-test"]) == 3
    assert "SKY-1005" in capsys.readouterr().err


def with_bom(data: bytes) -> oci.Bundle:
    config = bundles.config(ml_bom=ML_BOM_PATH, licenses=())
    return oci.build(config, {**bundles.files(), ML_BOM_PATH: MemoryBlob(data)})


def bom() -> bytes:
    config = bundles.config()
    return ml_bom(config, oci.measure(config, bundles.files()), ModelCard(), skerry_version="0")


def test_a_bundle_without_licences_passes_with_a_warning(tmp_path, capsys):
    write_bundle(with_bom(bom()), tmp_path / "a.skb")
    assert run(["verify", str(tmp_path / "a.skb")]) == 0
    assert rows(capsys.readouterr().out)["licences"] == "warning"


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        (bundles.bundle, "SKY-1003"),
        (lambda: with_bom(bom().replace(b"1.0.0", b"1.0.1")), "SKY-1003"),
        (lambda: with_bom(bom().replace(b'"modelCard":{', b'"modelCard":{"invented":1,')), "SKY-1006"),
    ],
    ids=["none", "of another version", "against the schema"],
)
def test_a_bundle_whose_evidence_is_wrong_is_refused(tmp_path, capsys, bundle, code):
    write_bundle(bundle(), tmp_path / "a.skb")
    assert run(["verify", str(tmp_path / "a.skb")]) == 1
    assert code in capsys.readouterr().err
