# SPDX-License-Identifier: Apache-2.0
import hashlib

import msgspec
import numpy as np
import pytest

from acceptance.runner_harness import write_bundle
from contracts.engine.models import affine
from skerry.errors import DigestMismatch, InputMissing, ManifestError
from skerry.runtime.bundle_dir import find_variant, read_config, read_file
from skerry.runtime.variant import load


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "b", affine(), {"x": np.ones((2, 4), np.float32)})


def test_a_manifest_is_checked_against_the_digest_when_there_is_one(folder):
    data = (folder / "skerry.json").read_bytes()
    assert read_config(folder, f"sha256:{hashlib.sha256(data).hexdigest()}").name == "digits"
    with pytest.raises(DigestMismatch):
        read_config(folder, "sha256:0")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 10_000, b" " * (4 * 1024 * 1024 + 1)])
def test_what_is_no_manifest(folder, data):
    (folder / "skerry.json").write_bytes(data)
    with pytest.raises(ManifestError):
        read_config(folder)


def test_only_declared_files_inside_the_bundle_are_read(folder):
    config = read_config(folder)
    (folder / "other").write_bytes(b"x")
    with pytest.raises(ManifestError, match="not among its files"):
        read_file(folder, config, "other")
    file = msgspec.structs.replace(config.files[0], path="../b/model.onnx")
    with pytest.raises(ManifestError, match="points outside"):
        read_file(folder, msgspec.structs.replace(config, files=(file,)), "../b/model.onnx")
    (folder / "model.onnx").unlink()
    with pytest.raises(InputMissing):
        read_file(folder, config, "model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "self-test.npz"])
def test_a_file_altered_after_the_agent_checked_it_is_not_loaded(folder, name):
    """The bytes that are hashed are the bytes that are used."""
    data = (folder / name).read_bytes()
    assert read_file(folder, read_config(folder), name) == data
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatch):
        load(folder, "fp32")


def test_an_unknown_variant(folder):
    with pytest.raises(ManifestError, match="no variant int8"):
        find_variant(read_config(folder), "int8")


def test_labels_of_the_bundle_and_shapes_of_the_engine(folder):
    config = read_config(folder)
    output = msgspec.structs.replace(config.io.outputs[0], labels=("a", "b", "c"), shape=(1, 3))
    changed = msgspec.structs.replace(config, io=msgspec.structs.replace(config.io, outputs=(output,)))
    (folder / "skerry.json").write_bytes(msgspec.json.encode(changed))
    loaded = load(folder, "fp32")
    assert (loaded.io.outputs[0].labels, loaded.io.outputs[0].shape) == (("a", "b", "c"), (-1, 3))
    assert loaded.costs.one > 0
