# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os

import pytest

from contracts.blobs.suite import LIMIT, BlobsContract, digest, stream
from skerry.errors import BadRequest, StorageError
from skerry.hub.blobs import checked_digest
from skerry.hub.blobs.local import LocalBlobs

NOW = 1_800_000_000.0


@pytest.fixture
def blobs(tmp_path):
    local = LocalBlobs(tmp_path)
    local.prepare(now=NOW)
    return local


@pytest.fixture
def traces(tmp_path):
    """How many unfinished uploads lie about."""
    return lambda: len(list((tmp_path / "incoming").iterdir()))


class TestLocalBlobs(BlobsContract):
    pass


def test_only_abandoned_uploads_are_swept(blobs, tmp_path):
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path, age in ((old, 90_000), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (NOW - age, NOW - age))
    assert blobs.prepare(now=NOW) == 1
    assert young.exists()
    assert not old.exists()


def test_disk_that_fails_is_a_storage_error_and_leaves_nothing(tmp_path):
    (tmp_path / "sha256").write_text("a file where a folder should be")
    blobs = LocalBlobs(tmp_path)
    blobs.prepare(now=NOW)
    with pytest.raises(StorageError):
        asyncio.run(blobs.put(digest(b"x"), stream(b"x"), limit=LIMIT))
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "sha256:", "sha256:" + "A" * 64, "sha256:../../etc/passwd", "sha512:" + "a" * 64, "sha256:" + "a" * 64 + "\n"],
)
def test_only_a_digest_ever_becomes_a_path(name):
    with pytest.raises(BadRequest):
        checked_digest(name)
