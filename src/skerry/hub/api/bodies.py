# SPDX-License-Identifier: Apache-2.0
"""Bodies that are not plain JSON: compressed batches coming in, blobs going out in whole or in part."""

from __future__ import annotations

from typing import Any

import zstandard
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from litestar.response import Stream

from skerry.errors import BadRequest, NotFound, PayloadTooLarge, RangeUnsatisfiable, UnsupportedContent
from skerry.hub.api.ranges import Part, Unsatisfiable, choose_range, none_match
from skerry.hub.blobs import Blobs

GivenBlobs = NamedDependency[SkipValidation[Blobs]]
"""What the application chose. A Protocol has no instances to check for."""

_BYTES = "application/octet-stream"
_IMMUTABLE = "private, max-age=31536000, immutable"


class CompressedRequest(Request[Any, Any, Any]):
    """A request whose body may be zstd. The limit of its route holds for what comes out as well."""

    async def body(self) -> bytes:
        encoding = self.headers.get("content-encoding", "identity").lower()
        raw = await super().body()
        if encoding == "identity":
            return raw
        if encoding != "zstd":
            raise UnsupportedContent(kind=encoding)
        return unpacked(raw, limit=self.route_handler.resolve_request_max_body_size() or 0)


def unpacked(raw: bytes, *, limit: int) -> bytes:
    """The content of one zstd frame. Raises PayloadTooLarge before more than `limit` bytes exist, BadRequest."""
    reader = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).stream_reader(raw)
    try:
        data = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise BadRequest(problem="the body is not zstd") from error
    if len(data) > limit:
        raise PayloadTooLarge(limit=limit)
    return data


async def blob_response(request: Request[Any, Any, Any], blobs: Blobs, digest: str) -> Response[Any]:
    """Answer GET and HEAD for a blob. Raises NotFound, RangeUnsatisfiable."""
    size = await blobs.size(digest)
    if size is None:
        raise NotFound(kind="blob", name=digest)
    etag = f'"{digest}"'
    headers = {"etag": etag, "accept-ranges": "bytes", "cache-control": _IMMUTABLE}
    if not none_match(request.headers.get("if-none-match"), etag):
        return Response(content=b"", status_code=304, headers=headers, media_type=_BYTES)
    if request.method == "HEAD":
        return Response(
            content=b"",
            headers={**headers, "content-length": str(size)},
            media_type=_BYTES,
        )
    decision = choose_range(request.headers.get("range"), request.headers.get("if-range"), etag=etag, size=size)
    if isinstance(decision, Unsatisfiable):
        raise RangeUnsatisfiable(size=size)
    part = decision if isinstance(decision, Part) else None
    start, stop = (part.start, part.stop) if part else (0, size)
    if part:
        headers["content-range"] = part.content_range(size)
    return Stream(
        content=blobs.read(digest, start=start, stop=stop),
        status_code=206 if part else 200,
        headers={**headers, "content-length": str(stop - start)},
        media_type=_BYTES,
    )
