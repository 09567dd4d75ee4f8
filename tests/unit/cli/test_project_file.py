# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import jsonschema
import pytest
from msgspec import inspect

from skerry.bundle.json_schema import render
from skerry.cli import strict_yaml
from skerry.cli.project import Project
from skerry.cli.project_file import load, parse
from skerry.cli.project_schema import project_schema, published
from skerry.cli.strict_yaml import YamlFlaw
from skerry.errors import ConfigError, ProjectFileError

GOOD = """\
apiVersion: skerry/v1alpha1
kind: Model
metadata:
  name: digits
  version: "1.0.0"
  labels: {team: "no"}
spec:
  release_seq: 3
  variants:
    - name: fp32
      file: a.onnx
    - name: int8
      file: b.onnx
      precision: int8
      needs: {arch: [x86_64], memory_mib: 64}
      tolerance:
        top1: true
        agreement: 0.9
  io:
    inputs:
      - {name: x, dtype: FP32, shape: [-1, 4], range: [0, 1]}
  self_test: {samples: s.npz, count: 8}
  egress: {results: [label]}
  licenses: [Apache-2.0]
  model_card:
    metrics: [{type: accuracy, value: 0.9}]
"""
PATH = Path("skerry.yaml")


def test_a_project_says_what_it_says():
    project = parse(GOOD, PATH).project
    assert (project.metadata.name, project.metadata.line, project.metadata.labels) == (
        "digits",
        "default",
        {"team": "no"},
    )
    assert [variant.name for variant in project.spec.variants] == ["fp32", "int8"]
    assert project.spec.variants[1].needs.arch == ("x86_64",)
    assert project.spec.variants[1].tolerance.agreement == 0.9
    assert project.spec.io.inputs[0].range == (0.0, 1.0)
    assert project.reference.name == "fp32"
    named = parse(GOOD.replace("release_seq: 3", "release_seq: 3\n  reference: int8"), PATH).project
    assert named.reference is named.spec.variants[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("precision: int8", "presision: int8", "14: spec.variants[1].presision: unknown key; did you mean precision?"),
        ("        top1: true", "        top_1: true", "17: spec.variants[1].tolerance.top_1: unknown key; did you mean top1?"),
        ("value: 0.9}", "valu: 0.9}", "26: spec.model_card.metrics[0].valu: unknown key; did you mean value?"),
        ("kind: Model", "kind: Model\nzzz: 1", "3: zzz: unknown key"),
        ("kind: Model", "kind: Model\nkind: Model", "3: kind: given twice, first on line 2"),
        ("      file: b.onnx", "      file: b.onnx\n      file: c.onnx", "14: spec.variants[1].file: given twice, first on line 13"),
        ("{samples: s.npz, count: 8}", "{count: 1, count: 8}", "22: spec.self_test.count: given twice, first on line 22"),
        ('"1.0.0"', "1.0", "5: metadata.version: expected str, got float (put it in quotes)"),
        ('"no"', "1", "6: metadata.labels: expected str, got int (put it in quotes)"),
        ("release_seq: 3", "release_seq: yes", "8: spec.release_seq: expected int, got str"),
        ("release_seq: 3", "release_seq: 0", "8: spec.release_seq: 0 is not in"),
        ("release_seq: 3", "release_seq: 3\n  floor_seq: 4", "9: spec.floor_seq: 4 is not in 0..release_seq"),
        ("release_seq: 3", "release_seq: 3\n  latency_budget_ms: 0", "9: spec.latency_budget_ms"),
        ("release_seq: 3", "release_seq: 3\n  reference: fp16", "9: spec.reference: there is no variant fp16"),
        ("  release_seq: 3\n", "", "7: spec: release_seq is missing"),
        ("      file: b.onnx\n", "", "12: spec.variants[1]: file is missing"),
        ("name: digits", "name: Digits", "4: metadata.name: 'Digits' is not a name"),
        ('version: "1.0.0"', 'version: "a/b"', "5: metadata.version: 'a/b' is not a version"),
        ("- name: int8", "- name: fp32", "12: spec.variants[1].name: fp32 is the name of another one already"),
        ("agreement: 0.9", "agreement: 90", "18: spec.variants[1].tolerance.agreement: is a share"),
        ("count: 8", "count: 0", "22: spec.self_test.count: must be at least 1"),
        ("kind: Model", "kind: Fleet", "2: kind: invalid enum value 'Fleet'"),
        ("kind: Model", "kind: &x Model", "2: an anchor is not allowed"),
        ("kind: Model", "kind: *x", "2: an alias is not allowed"),
        ("kind: Model", "kind: !!str Model", "2: a tag is not allowed"),
        ("kind: Model", "kind: !!python/object:os.system Model", "2: a tag is not allowed"),
        ("apiVersion", "%YAML 1.1\n---\napiVersion", "1: a directive is not allowed"),
        ("kind: Model", "---\nkind: Model", "2: "),
        ("kind: Model", "kind: [[[", "4: "),
        ("kind: Model", "kind: 'Model", "2"),
        ("kind: Model", "? [a]\n: b", "a key must be a text"),
        ("kind: Model", "kind:\tModel\n\tx: 1", ""),
        ("kind: Model", "kind: \x07", ""),
        ('labels: {team: "no"}', "<<: {a: 1}", "6: metadata.<<: unknown key"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_line_and_path(old, new, message):
    assert old in GOOD
    with pytest.raises(ProjectFileError) as caught:
        parse(GOOD.replace(old, new, 1), PATH)
    assert str(caught.value).startswith("skerry.yaml:")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "- a\n", "text", "[" * 5000, "a: " * 2000, "x" * (1024 * 1024 + 1)]
)
def test_what_is_no_project_at_all(text):
    with pytest.raises(ProjectFileError):
        parse(text, PATH)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "yes", "on", "off", "y", "12:30", "1.2.3", "2024-01-01", "0b11", "1_000")],
        *[("true", True), ("True", True), ("false", False), ("null", None), ("~", None), ("", None)],
        *[("012", 12), ("0o14", 12), ("0x1F", 31), ("-7", -7), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("-.inf", float("-inf"))],
        *[("'12'", "12"), ('"true"', "true"), ("|\n  12\n", "12\n"), ("[1, a]", [1, "a"]), ("{}", {})],
    ],
)  # fmt: skip
def test_values_mean_what_yaml_1_2_says(text, value):
    found = strict_yaml.parse(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_numbers_as_keys_are_texts():
    assert strict_yaml.parse("1: a\ntrue: b").value == {"1": "a", "true": "b"}


def test_nothing_is_deeper_than_32_levels():
    with pytest.raises(YamlFlaw, match="deeper than"):
        strict_yaml.parse("[" * 40 + "]" * 40)


def test_a_line_is_found_for_anything():
    document = strict_yaml.parse("a:\n  - b: 1\n    c: 2\n")
    assert document.line(("a", 0, "c")) == 3
    assert document.line(("a", 0, "gone", "deeper")) == 2
    assert document.line(()) == 1


def test_a_file_or_its_folder(tmp_path):
    (tmp_path / "skerry.yaml").write_text(GOOD)
    assert load(tmp_path).project == load(tmp_path / "skerry.yaml").project
    assert load(tmp_path).folder == tmp_path
    with pytest.raises(ConfigError, match="skerry init"):
        load(tmp_path / "none")
    (tmp_path / "skerry.yaml").write_bytes(b"kind: \xff")
    with pytest.raises(ProjectFileError, match="UTF-8"):
        load(tmp_path)


def test_the_published_schema_is_that_of_the_structs():
    assert published() == render(project_schema()), "run scripts/schemas.py"


def test_the_schema_and_the_reader_agree():
    schema = project_schema()
    jsonschema.validate(strict_yaml.parse(GOOD).value, schema)
    for typo in ("presision: int8", "precision: 8"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(strict_yaml.parse(GOOD.replace("precision: int8", typo)).value, schema)


DOCS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "project-file.md"


def keys_of(kind) -> set[str]:
    if isinstance(kind, inspect.StructType):
        return {name for field in kind.fields for name in {field.encode_name} | keys_of(field.type)}
    if isinstance(kind, inspect.VarTupleType):
        return keys_of(kind.item_type)
    return set()


def test_the_reference_page_shows_and_explains_every_key():
    page = DOCS.read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    assert parse(example, PATH).project.metadata.name == "weld-defect"
    shown = {str(step) for path in strict_yaml.parse(example).lines for step in path}
    known = keys_of(inspect.type_info(Project))
    assert known - shown <= {"accelerator", "atol", "rtol", "state", "input", "output"}
    assert {key for key in known - {"apiVersion", "kind", "metadata", "spec"} if f"`{key}" not in page} == set()
