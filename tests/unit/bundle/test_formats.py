# SPDX-License-Identifier: Apache-2.0
import io
import pickle  # noqa: TID251 - to make what must be refused
import zipfile

import numpy as np
import pytest

from skerry.bundle import formats
from skerry.bundle.blob import MemoryBlob
from skerry.bundle.formats import kind_by_content, kind_by_name, require_inert
from skerry.errors import ArchiveBomb, ExecutableFormat
from support.bundles import samples
from support.models import linear_classifier


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "m.pt",
        "m.PTH",
        "m.pkl",
        "m.joblib",
        "m.keras",
        "m.h5",
        "m.so",
        "m.so.1",
        "m.dll",
        "run.sh",
        "a.py",
        "w.zip",
        "x.tar.gz",
    ],
)
def test_suffixes_that_promise_code(name):
    assert kind_by_name(name)
    with pytest.raises(ExecutableFormat):
        require_inert(name, MemoryBlob(b"harmless"))


@pytest.mark.parametrize(
    "name", ["m.onnx", "m.tflite", "w.bin", "README.md", "labels.txt", "bom.cdx.json", "s.npz", "noext", "LICENSE"]
)
def test_suffixes_that_do_not(name):
    assert kind_by_name(name) is None


@pytest.mark.parametrize(
    "data",
    [
        *(pickle.dumps({"a": [1, "x"]}, protocol=protocol) for protocol in (2, 3, 4, 5)),
        b"\x80\x02cos\nsystem\n(S'true'\ntR.",
        b"\x89HDF\r\n\x1a\n" + bytes(64),
        b"\x7fELF\x02\x01\x01",
        b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\x00\x00",
        b"\xcf\xfa\xed\xfe" + bytes(16),
        b"\xca\xfe\xba\xbe" + bytes(16),
        b"\x00asm\x01\x00\x00\x00",
        b"#!/bin/sh\n",
        b"#! /usr/bin/python3\n",
        b"\x1f\x8b\x08" + bytes(16),
        b"\x28\xb5\x2f\xfd" + bytes(16),
        archive(**{"archive/data__pkl": b"x"}),
        archive(),
        npy(np.array([{}], dtype=object), allow_pickle=True),
    ],
)
def test_content_that_can_run_whatever_it_is_called(data):
    assert kind_by_content(data)
    with pytest.raises(ExecutableFormat):
        require_inert("model.onnx", MemoryBlob(data))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"MZ", b"MZ" + bytes(100), b"# Title", linear_classifier(), npy(np.zeros(3)), bytes(range(256))],
)
def test_content_that_cannot(data):
    assert kind_by_content(data) is None
    require_inert("model.onnx", MemoryBlob(data))


def test_plain_samples_pass():
    require_inert("self-test.npz", MemoryBlob(samples()))


@pytest.mark.parametrize(
    "data",
    [
        b"not a zip",
        archive(x__npy=npy(np.array([{}], dtype=object), allow_pickle=True)),
        archive(x__npy=npy(np.zeros(1, dtype=[("a", "f4"), ("b", "O")]), allow_pickle=True)),
        archive(x__npy=pickle.dumps([])),
        archive(data__pkl=b"x"),
        archive(x__npy=npy(np.zeros(3)), y__py=b"import os"),
        samples()[:-30],
    ],
    ids=["no zip", "objects", "object field", "pickle", "pkl", "python", "cut"],
)
def test_samples_that_hold_something_else_are_refused(data):
    with pytest.raises(ExecutableFormat):
        require_inert("self-test.npz", MemoryBlob(data))


def test_samples_that_unfold_too_far_are_refused(monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy(np.zeros(100_000)))
    data = buffer.getvalue()
    require_inert("self-test.npz", MemoryBlob(data))
    monkeypatch.setattr(formats, "NPZ_LIMIT", 10_000)
    with pytest.raises(ArchiveBomb):
        require_inert("self-test.npz", MemoryBlob(data))
    monkeypatch.setattr(formats, "NPZ_LIMIT", 100)
    with pytest.raises(ArchiveBomb):
        require_inert("self-test.npz", MemoryBlob(data))
