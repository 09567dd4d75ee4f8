# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from msgspec.structs import replace

from contracts.store.values import NOW, bundle, bundle_record
from skerry.errors import Conflict, NotFound, StaleVersion
from skerry.hub.domain import CatalogueFile

pytestmark = pytest.mark.anyio


def file(name: str, version: int, data: bytes = b"data") -> CatalogueFile:
    return CatalogueFile(name=name, version=version, data=data)


async def test_bundles_are_published_once(store):
    await store.put_bundle(bundle_record(1))
    await store.put_bundle(replace(bundle_record(1), published=NOW + 9))
    assert await store.bundle(bundle(1).digest) == bundle_record(1)
    other = replace(bundle_record(1), ref=replace(bundle(1), digest=bundle(9).digest))
    with pytest.raises(Conflict, match="exists with digest"):
        await store.put_bundle(other)
    renamed = replace(bundle_record(1), ref=replace(bundle(1), version="7.7"))
    with pytest.raises(Conflict, match="another name"):
        await store.put_bundle(renamed)
    with pytest.raises(NotFound):
        await store.bundle(bundle(9).digest)


async def test_bundles_are_found_by_name_and_listed_by_release(store):
    for record in (
        bundle_record(10),
        bundle_record(9),
        bundle_record(3, model="faces"),
        bundle_record(4, line="other"),
    ):
        await store.put_bundle(record)
    listed = await store.bundles()
    assert [(b.ref.line, b.ref.name) for b in listed] == [
        ("demo", "digits:9.0"),
        ("demo", "digits:10.0"),
        ("demo", "faces:3.0"),
        ("other", "digits:4.0"),
    ]
    assert [b.ref.version for b in await store.bundles(line="demo", model="digits")] == ["9.0", "10.0"]
    assert (await store.find_bundle(model="digits", version="9.0")).ref == bundle(9)
    with pytest.raises(NotFound):
        await store.find_bundle(model="digits", version="9.0", line="other")


async def test_a_name_in_two_lines_needs_the_line(store):
    await store.put_bundle(bundle_record(1))
    twin = bundle_record(2, line="other")
    await store.put_bundle(replace(twin, ref=replace(twin.ref, version="1.0")))
    with pytest.raises(Conflict, match="several lines"):
        await store.find_bundle(model="digits", version="1.0")
    assert (await store.find_bundle(model="digits", version="1.0", line="demo")).ref == bundle(1)


async def test_quarantine_keeps_the_first_reason(store):
    await store.put_bundle(bundle_record(1))
    await store.quarantine(bundle(1).digest, reason="slow", now=NOW)
    await store.quarantine(bundle(1).digest, reason="other", now=NOW + 1)
    await store.quarantine(bundle(9).digest, reason="unknown is ignored", now=NOW)
    kept = await store.bundle(bundle(1).digest)
    assert (kept.quarantined, kept.quarantine_reason) == (NOW, "slow")


async def test_catalogue_files_keep_every_version(store):
    await store.put_catalogue_files([file("root", 1), file("timestamp", 1, b"t1")], expect={"root": 0})
    await store.put_catalogue_files([file("timestamp", 2, b"t2")], expect={"timestamp": 1})
    assert await store.catalogue_file("timestamp") == file("timestamp", 2, b"t2")
    assert await store.catalogue_file("timestamp", version=1) == file("timestamp", 1, b"t1")
    assert await store.catalogue_file("timestamp", version=3) is None
    assert await store.catalogue_file("snapshot") is None
    assert await store.catalogue_names() == ("root", "timestamp")


async def test_catalogue_files_are_added_all_or_none(store):
    await store.put_catalogue_files([file("a", 1)], expect={})
    with pytest.raises(StaleVersion):
        await store.put_catalogue_files([file("b", 1), file("a", 1, b"changed")], expect={})
    with pytest.raises(StaleVersion):
        await store.put_catalogue_files([file("b", 1)], expect={"a": 0})
    assert await store.catalogue_names() == ("a",)
    await store.put_catalogue_files([file("b", 1), file("a", 1)], expect={"a": 1})
    assert await store.catalogue_names() == ("a", "b")


async def test_of_two_publishing_the_same_version_one_wins(store):
    tries = [store.put_catalogue_files([file("a", 1, data)], expect={"a": 0}) for data in (b"x", b"y")]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "StaleVersion"]
