# SPDX-License-Identifier: Apache-2.0
"""One blob from the hub, continued where it broke off.

Range and If-Range (RFC 9110 sections 13.1.5 and 14.2): the ETag of a blob is its digest, so a partial file can be continued
after a restart without having kept anything else.
"""

from __future__ import annotations

from skerry.agent.update.contract import Context, StepRefused
from skerry.errors import DigestMismatch, DownloadBroken, TooMuchData, UnexpectedReply

_PARTIAL = 206
DIGEST_MISMATCH = "digest-mismatch"


def download(context: Context, digest: str, size: int) -> None:
    """Until the blob is in the store. Raises RoadError to try again later, StepRefused for content that is not what was signed.

    A wrong digest after a continued download is tried once more from the start: what was on disk may have rotted.
    """
    if context.store.has(digest):
        return
    resumed = context.store.received(digest) > 0
    try:
        _receive(context, digest, size)
    except (DigestMismatch, TooMuchData):
        context.store.restart(digest)
        if not resumed:
            raise
        _receive(context, digest, size)


def _receive(context: Context, digest: str, size: int) -> None:
    store = context.store
    offset = store.received(digest)
    if offset > size:
        store.restart(digest)
        offset = 0
    if offset < size or size == 0:
        _stream(context, digest, size, offset)
    store.finish(digest)


def _stream(context: Context, digest: str, size: int, offset: int) -> None:
    store = context.store
    with context.road.blob(digest, offset=offset, etag=f'"{digest}"') as reply:
        if offset and reply.status != _PARTIAL:
            store.restart(digest)
            offset = 0
        elif offset and not reply.headers.get("content-range", "").startswith(f"bytes {offset}-"):
            raise UnexpectedReply(url=digest, status=reply.status, problem="another range than asked for")
        for chunk in reply.chunks():
            context.check_cancelled()
            offset += len(chunk)
            if offset > size:
                raise TooMuchData(name=digest, limit=size)
            store.receive(digest, chunk)
    if offset < size:
        raise DownloadBroken(name=digest, received=offset, expected=size)
    if size == 0:
        store.receive(digest, b"")


def refuse_wrong_content(error: DigestMismatch | TooMuchData) -> StepRefused:
    return StepRefused(DIGEST_MISMATCH, str(error))
