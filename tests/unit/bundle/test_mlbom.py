# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

import msgspec
import pytest

from skerry.bundle import oci
from skerry.bundle.blob import MemoryBlob
from skerry.bundle.mlbom import ML_BOM_PATH, Dataset, Fairness, Metric, ModelCard, Risk, check_ml_bom, ml_bom
from skerry.cli.evidence import require_valid_bom
from skerry.errors import ManifestError, SchemaError
from support import bundles

FULL = ModelCard(
    learning="supervised",
    architecture_family="mlp",
    architecture="2 hidden layers",
    authors=("A. Author",),
    supplier="Example Ltd",
    created="2026-01-02T03:04:05Z",
    datasets=(Dataset(name="digits", url="https://example.com/digits", classification="public", sensitive=("none",)),),
    metrics=(Metric(type="accuracy", value=0.97, slice="hold-out"), Metric(type="robust", value="0.9 +- 0.01")),
    users=("operators",),
    use_cases=("reading digits",),
    limitations=("8x8 scans only",),
    trade_offs=("int8 is faster and a little worse",),
    ethical_risks=(Risk(name="misreading", mitigation="hold for review"),),
    fairness=(Fairness(group_at_risk="left-handed", harms="worse", benefits="none", mitigation="more data"),),
)


def bom(card: ModelCard = FULL, **changes) -> bytes:
    config = bundles.config(**changes)
    return ml_bom(config, oci.measure(config, bundles.files()), card, skerry_version="0.1.0")


def with_bom(data: bytes):
    return oci.build(bundles.config(ml_bom=ML_BOM_PATH), {**bundles.files(), ML_BOM_PATH: MemoryBlob(data)}).config


@pytest.mark.parametrize("card", [FULL, ModelCard()], ids=["full", "empty"])
@pytest.mark.parametrize("licenses", [(), ("MIT",), ("MIT", "Apache-2.0 OR BSD-3-Clause")])
def test_it_follows_cyclonedx_to_the_letter(card, licenses):
    require_valid_bom(bom(card, licenses=licenses))


def test_an_address_that_is_none_is_refused():
    with pytest.raises(SchemaError, match="url"):
        require_valid_bom(bom(msgspec.structs.replace(FULL, datasets=(Dataset(name="d", url="ht tp://<bad>"),))))


def test_a_bom_without_addresses_does_not_pay_for_their_grammar():
    """A second of CPU on every `skerry pack` and `skerry verify`."""
    code = "import sys; from skerry.cli.evidence import require_valid_bom as check; "
    code += "check(sys.stdin.buffer.read()); print('lark' in sys.modules)"
    for card, needed in ((ModelCard(), b"False"), (FULL, b"True")):
        ran = subprocess.run([sys.executable, "-c", code], input=bom(card), capture_output=True, check=True)
        assert ran.stdout.strip() == needed


def test_the_model_card_says_what_the_author_said():
    component = json.loads(bom())["metadata"]["component"]
    card = component["modelCard"]
    assert component["type"] == "machine-learning-model"
    assert (component["name"], component["version"]) == ("digits", "1.0.0")
    assert card["modelParameters"]["approach"] == {"type": "supervised"}
    assert card["modelParameters"]["inputs"] == [{"format": "x: FP32[any, 3]"}]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "accuracy", "value": "0.97", "slice": "hold-out"},
        {"type": "robust", "value": "0.9 +- 0.01"},
    ]
    assert card["considerations"]["technicalLimitations"] == ["8x8 scans only"]
    assert card["considerations"]["fairnessAssessments"][0]["groupAtRisk"] == "left-handed"


def test_nothing_is_claimed_that_nobody_said():
    card = json.loads(bom(ModelCard()))["metadata"]["component"]["modelCard"]
    assert set(card) == {"modelParameters"}
    assert set(card["modelParameters"]) == {"inputs", "outputs"}


def test_every_file_is_named_by_digest():
    listed = {
        part["name"]: part["hashes"][0]["content"] for part in json.loads(bom())["components"] if part["type"] == "file"
    }
    config = bundles.bundle().config
    assert listed == {file.path: file.digest.removeprefix("sha256:") for file in config.files}


def test_equal_inputs_give_equal_bytes_and_no_date_of_their_own():
    assert bom() == bom()
    assert "timestamp" not in json.loads(bom(ModelCard()))["metadata"]
    assert "serialNumber" not in json.loads(bom())


def test_it_belongs_to_its_bundle():
    check_ml_bom(bom(), with_bom(bom()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda b: b["metadata"]["component"].update(version="9"), "is about"),
        (lambda b: b.update(specVersion="1.5"), "is about"),
        (lambda b: b["components"].pop(), "differ on"),
        (lambda b: b["components"][-1]["hashes"][0].update(content="0" * 64), "differ on"),
        (lambda b: b.pop("metadata"), "lacks 'metadata'"),
        (lambda b: b.update(components=1), "lacks"),
        (lambda b: b["components"][-1].update(hashes=[]), "lacks"),
    ],
)
def test_one_of_another_bundle_is_noticed(change, problem):
    document = json.loads(bom())
    change(document)
    data = msgspec.json.encode(document)
    with pytest.raises(ManifestError, match=problem):
        check_ml_bom(data, with_bom(data))


@pytest.mark.parametrize(
    "data",
    [b"{}", b"[]", b"nonsense", b"\xff", bom().replace(b'"modelCard":{', b'"modelCard":{"invented":1,')],
    ids=["empty", "list", "no json", "no text", "unknown key"],
)
def test_what_does_not_follow_the_schema_is_refused(data):
    with pytest.raises(SchemaError):
        require_valid_bom(data)
