# SPDX-License-Identifier: Apache-2.0
"""What every implementation of `hub.blobs.Blobs` must hold. A test module inherits it and gives `blobs` and `traces`."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from skerry.errors import DigestMismatch, NotFound, PayloadTooLarge

LIMIT = 64 * 1024 * 1024


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def stream(*chunks, breaks=None):
    for chunk in chunks:
        yield chunk
    if breaks is not None:
        raise breaks


async def whole(blobs, name, **bounds):
    return b"".join([chunk async for chunk in blobs.read(name, **bounds)])


class BlobsContract:
    def test_what_was_put_is_read_back_whole(self, blobs):
        data = bytes(range(256)) * 9000
        stored = asyncio.run(blobs.put(digest(data), stream(data[:1000], data[1000:]), limit=LIMIT))
        assert stored == len(data)
        assert asyncio.run(blobs.size(digest(data))) == len(data)
        assert asyncio.run(whole(blobs, digest(data))) == data
        assert asyncio.run(blobs.content(digest(data), limit=LIMIT)) == data

    def test_empty_blob(self, blobs):
        assert asyncio.run(blobs.put(digest(b""), stream(), limit=LIMIT)) == 0
        assert asyncio.run(whole(blobs, digest(b""))) == b""

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 9), (300_000, 700_001), (999_999, 1_000_000), (7, None)])
    def test_part_of_a_blob(self, blobs, start, stop):
        data = (b"0123456789" * 100_000)[:1_000_000]
        asyncio.run(blobs.put(digest(data), stream(data), limit=LIMIT))
        assert asyncio.run(whole(blobs, digest(data), start=start, stop=stop)) == data[start:stop]

    def test_wrong_bytes_are_never_visible(self, blobs, traces):
        with pytest.raises(DigestMismatch) as caught:
            asyncio.run(blobs.put(digest(b"right"), stream(b"wrong"), limit=LIMIT))
        assert caught.value.fields["expected"] == digest(b"right")
        assert asyncio.run(blobs.size(digest(b"right"))) is None
        assert asyncio.run(blobs.size(digest(b"wrong"))) is None
        assert traces() == 0

    def test_upload_cut_off_is_never_visible(self, blobs, traces):
        with pytest.raises(ConnectionError):
            asyncio.run(blobs.put(digest(b"abc"), stream(b"ab", breaks=ConnectionError()), limit=LIMIT))
        assert asyncio.run(blobs.size(digest(b"abc"))) is None
        assert traces() == 0

    def test_too_large_upload_stops_early_and_leaves_nothing(self, blobs, traces):
        taken = []

        async def endless():
            for _ in range(1000):
                taken.append(1)
                yield bytes(1024 * 1024)

        with pytest.raises(PayloadTooLarge):
            asyncio.run(blobs.put(digest(b"x"), endless(), limit=3 * 1024 * 1024))
        assert len(taken) < 10
        assert traces() == 0

    def test_put_again_is_no_error_and_a_bad_second_put_harms_nothing(self, blobs):
        name = digest(b"same")
        asyncio.run(blobs.put(name, stream(b"same"), limit=LIMIT))
        asyncio.run(blobs.put(name, stream(b"sa", b"me"), limit=LIMIT))
        with pytest.raises(DigestMismatch):
            asyncio.run(blobs.put(name, stream(b"evil"), limit=LIMIT))
        assert asyncio.run(whole(blobs, name)) == b"same"

    def test_many_uploads_of_one_digest_at_once(self, blobs, traces):
        data = bytes(3_000_000)

        async def together():
            await asyncio.gather(*(blobs.put(digest(data), stream(data), limit=LIMIT) for _ in range(8)))
            return await whole(blobs, digest(data))

        assert asyncio.run(together()) == data
        assert traces() == 0

    def test_reader_keeps_its_bytes_while_the_same_blob_is_put_again(self, blobs):
        data = bytes(range(256)) * 4000

        async def scene():
            await blobs.put(digest(data), stream(data), limit=LIMIT)
            reading = aiter(blobs.read(digest(data)))
            first = await anext(reading)
            await blobs.put(digest(data), stream(data), limit=LIMIT)
            return first + b"".join([chunk async for chunk in reading])

        assert asyncio.run(scene()) == data

    def test_absent_blob(self, blobs):
        name = digest(b"never put")
        assert asyncio.run(blobs.size(name)) is None
        with pytest.raises(NotFound):
            asyncio.run(whole(blobs, name))
        with pytest.raises(NotFound):
            asyncio.run(blobs.content(name, limit=LIMIT))

    def test_content_above_its_limit_is_not_read(self, blobs):
        asyncio.run(blobs.put(digest(b"0123456789"), stream(b"0123456789"), limit=LIMIT))
        with pytest.raises(PayloadTooLarge):
            asyncio.run(blobs.content(digest(b"0123456789"), limit=9))
