# SPDX-License-Identifier: Apache-2.0
import json

import msgspec
import pytest

from skerry.bundle import canonical, oci
from skerry.bundle.blob import MemoryBlob, content
from skerry.bundle.digest import digest_of, digest_of_chunks, is_digest
from skerry.errors import (
    ArchiveBomb,
    BadEntryName,
    DigestMismatch,
    DuplicateEntry,
    ExecutableFormat,
    ManifestError,
    MissingEntry,
    PathEscape,
    SizeLie,
    UndeclaredEntry,
)
from support import bundles


def changed(change) -> bytes:
    """The manifest of a bundle after `change` to its JSON, written canonically again."""
    document = json.loads(bundles.bundle().manifest.data)
    change(document)
    return canonical.encode(document)


def test_a_bundle_has_every_file_with_its_digest_and_size():
    bundle = bundles.bundle()
    assert [file.path for file in bundle.config.files] == sorted(bundles.files())
    for file in bundle.config.files:
        data = content(bundle.file(file.path))
        assert (digest_of(data), len(data)) == (file.digest, file.size)
    assert [variant.size for variant in bundle.config.variants] == [1300, 390]
    assert bundle.digest == digest_of(bundle.manifest.data)


def test_equal_inputs_in_any_order_give_the_same_digest():
    files = bundles.files()
    backwards = dict(reversed(files.items()))
    assert oci.build(bundles.config(), files).digest == oci.build(bundles.config(), backwards).digest
    assert oci.build(bundles.config(version="1.0.1"), files).digest != oci.build(bundles.config(), files).digest


def test_the_image_is_what_modelpack_asks_for():
    bundle = bundles.bundle()
    image = json.loads(bundle.manifest.data)
    assert image["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert image["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert image["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert {layer["mediaType"].rpartition(".")[2] for layer in image["layers"]} == {"raw"}
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in image["layers"]] == [
        "skerry.json",
        *sorted(bundles.files()),
    ]


def test_the_modelpack_config_has_no_key_of_ours_and_lists_the_layers():
    bundle = bundles.bundle()
    document = json.loads(content(bundle.blobs[bundle.manifest.model_config.digest]))
    assert set(document) == {"descriptor", "config", "modelfs"}
    assert document["descriptor"] == {"name": "digits", "version": "1.0.0", "licenses": ["Apache-2.0"]}
    assert document["config"] == {"format": "onnx", "precision": "float32,int8"}
    assert document["modelfs"]["diffIds"] == [
        bundle.manifest.config.digest,
        *(layer.digest for layer in bundle.manifest.files),
    ]


def test_kinds_are_read_off_the_config():
    kinds = {file.path: file.kind for file in bundles.bundle().config.files}
    assert kinds == {
        bundles.CARD: "doc",
        bundles.FP32: "weight",
        bundles.INT8: "weight",
        bundles.SAMPLES: "self-test",
    }


def test_two_files_with_the_same_content_share_a_blob():
    files = bundles.files(**{bundles.INT8: content(bundles.files()[bundles.FP32])})
    bundle = oci.build(bundles.config(), files)
    digests = [blob.digest for blob in bundle.manifest.blobs]
    assert len(digests) == len(set(digests)) == len(bundle.blobs)
    assert len(bundle.manifest.files) == 4


def test_a_manifest_is_read_back_as_it_was_made():
    bundle = bundles.bundle()
    manifest = oci.parse_manifest(bundle.manifest.data)
    assert manifest == bundle.manifest
    assert oci.open_config(manifest, content(bundle.blobs[manifest.config.digest])) == bundle.config


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: m.update(schemaVersion=1), ManifestError),
        (lambda m: m.update(mediaType="application/vnd.oci.image.index.v1+json"), ManifestError),
        (lambda m: m.update(artifactType="application/vnd.example"), ManifestError),
        (lambda m: m.update(subject={}), ManifestError),
        (lambda m: m["config"].update(mediaType="application/json"), ManifestError),
        (lambda m: m["config"].update(digest="sha256:no"), ManifestError),
        (lambda m: m["config"].update(digest="sha512:" + "0" * 64), ManifestError),
        (lambda m: m["config"].update(urls=["https://example.com/"]), ManifestError),
        (lambda m: m["config"].update(data="e30="), ManifestError),
        (lambda m: m["layers"].clear(), ManifestError),
        (lambda m: m["layers"].pop(0), ManifestError),
        (lambda m: m["layers"].append(m["layers"][0]), ManifestError),
        (lambda m: m["layers"].append(m["layers"][1]), DuplicateEntry),
        (lambda m: m["layers"].extend([m["layers"][1]] * 2000), ManifestError),
        (lambda m: m["layers"][1].update(mediaType="application/vnd.cncf.model.weight.v1.tar+gzip"), ManifestError),
        (lambda m: m["layers"][1].update(size=-1), ArchiveBomb),
        (lambda m: m["layers"][1].update(size=2**40), ArchiveBomb),
        (lambda m: m["layers"][1].update(size=1.5), ManifestError),
        (lambda m: m["layers"][1].update(digest=m["layers"][2]["digest"]), SizeLie),
        (lambda m: m["layers"][1].pop("annotations"), BadEntryName),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "../x"}), PathEscape),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "a/../../x"}), PathEscape),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "/etc/passwd"}), PathEscape),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "a\\b"}), BadEntryName),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "a\x00b"}), BadEntryName),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "Skerry.JSON"}), DuplicateEntry),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "models"}), DuplicateEntry),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "model.pt"}), ExecutableFormat),
        (lambda m: m["layers"][1]["annotations"].update({oci.FILEPATH: "lib.so.1.2"}), ExecutableFormat),
    ],
)
def test_an_odd_manifest_is_refused(change, error):
    with pytest.raises(error):
        oci.parse_manifest(changed(change))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        bundles.bundle().manifest.data + b"\n",
        bundles.bundle().manifest.data.replace(b'"schemaVersion":2', b'"schemaVersion":2,"schemaVersion":2'),
        json.dumps(json.loads(bundles.bundle().manifest.data)).encode(),
        b" " * (canonical.MAX_DOCUMENT + 1),
    ],
    ids=["empty", "object", "array", "null", "binary", "deep", "newline", "duplicate", "spaced", "large"],
)
def test_bytes_that_are_not_the_canonical_manifest_are_refused(data):
    with pytest.raises(ManifestError):
        oci.parse_manifest(data)


def replace_file(config, index, **changes):
    files = list(config.files)
    files[index] = msgspec.structs.replace(files[index], **changes)
    return msgspec.structs.replace(config, files=tuple(files))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: msgspec.structs.replace(c, files=c.files[1:]), UndeclaredEntry),
        (lambda c: replace_file(c, 0, path="other.md"), UndeclaredEntry),
        (lambda c: msgspec.structs.replace(c, files=(*c.files, c.files[0])), DuplicateEntry),
        (lambda c: replace_file(c, 0, digest="sha256:" + "0" * 64), DigestMismatch),
        (lambda c: replace_file(c, 0, size=1), SizeLie),
        (lambda c: replace_file(c, 0, kind="weight"), ManifestError),
    ],
)
def test_a_config_that_is_not_that_of_the_manifest_is_refused(change, error):
    bundle = bundles.bundle()
    with pytest.raises(error):
        oci.check_config_matches(bundle.manifest, change(bundle.config))


def test_a_file_of_the_config_without_a_layer_is_missing():
    bundle = bundles.bundle()
    fewer = oci.build(bundles.config(), {k: v for k, v in bundles.files().items() if k != bundles.CARD})
    with pytest.raises(MissingEntry, match=r"README\.md"):
        oci.check_config_matches(fewer.manifest, bundle.config)


def test_another_config_than_the_one_named_is_refused():
    other = oci.build(bundles.config(version="2.0.0"), bundles.files())
    data = content(other.blobs[other.manifest.config.digest])
    with pytest.raises(DigestMismatch):
        oci.open_config(bundles.bundle().manifest, data)


def test_the_config_ignores_keys_of_later_versions_but_not_a_later_schema():
    bundle = bundles.bundle()
    document = json.loads(content(bundle.blobs[bundle.manifest.config.digest]))
    assert oci.parse_config(canonical.encode({**document, "later": 1})) == bundle.config
    with pytest.raises(ManifestError):
        oci.parse_config(canonical.encode({**document, "schema": "skerry/bundle/v2"}))


@pytest.mark.parametrize("bad", [b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": Infinity}', b'"\xff"', b'{"a":1}x'])
def test_json_that_two_readers_could_take_for_different_things_is_refused(bad):
    with pytest.raises(ManifestError):
        canonical.decode(bad, dict, document="it")


def test_a_file_the_bundle_does_not_have():
    with pytest.raises(MissingEntry):
        bundles.bundle().file("no")


def test_digests():
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_of_chunks([b"ab", b"", b"c"]) == (digest_of(b"abc"), 3)
    assert is_digest(digest_of(b""))
    assert not any(map(is_digest, ["", "sha256:", digest_of(b"").upper(), digest_of(b"") + "0", "md5:" + "0" * 64]))


@pytest.mark.parametrize("name", ["model.pt", "code.py", "w.h5"])
def test_a_file_that_can_run_code_is_not_packed(name):
    with pytest.raises(ExecutableFormat):
        oci.build(bundles.config(), {**bundles.files(), name: MemoryBlob(b"x")})
