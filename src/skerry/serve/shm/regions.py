# SPDX-License-Identifier: Apache-2.0
"""Triton's system shared memory: regions that clients made, named here, and named again by their requests.

Such memory can be cut short by its owner at any time, and a process that then reads a mapping of it dies (SIGBUS). So it is
never mapped: `pread` and `pwrite` copy, and report what is not there. The copy is also what nobody can change under a model.

Without `offered` every region is one nobody has; a client learns nothing of regions it cannot name, not even from errors.
"""

from __future__ import annotations

import os
import stat
import weakref
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct

from skerry.errors import InferenceRequestInvalid, RequestTooLarge

_FOLDER: Final = "/dev/shm"  # noqa: S108 - where shm_open(3) keeps its objects
_MAX_KEY: Final = 255
_MAX_NAME: Final = 255
_MAX_REGIONS: Final = 256
_MAX_SIZE: Final = 1 << 40
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Registration(Struct, frozen=True, kw_only=True):
    """Body of a request to register; numbers in bytes."""

    key: str
    byte_size: int
    offset: int = 0


class Place(Struct, frozen=True, kw_only=True):
    """Part of a region, as a request names it."""

    region: str
    offset: int
    size: int


class Allowance:
    """What one request may bring in from regions, in bytes: it counts like a body, for an object of any size costs nothing."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def take(self, size: int) -> None:
        """Raises RequestTooLarge."""
        self._left -= size
        if self._left < 0:
            raise RequestTooLarge(limit=self._limit)


@dataclass(frozen=True, eq=False)
class _Region:
    """Whoever holds it may read: the file is closed with the last one, never under a request on another thread."""

    key: str
    fd: int
    offset: int
    size: int


def _bad(problem: str) -> InferenceRequestInvalid:
    return InferenceRequestInvalid(problem=problem)


class Regions:
    """Changed on the loop's thread, read from any."""

    def __init__(self, folder: str = _FOLDER) -> None:
        self._folder = folder
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, asked: Registration) -> None:
        """Raises InferenceRequestInvalid. A name that is taken has to be unregistered first."""
        if not 0 < len(name) <= _MAX_NAME:
            raise _bad(f"the name of a region has 1 to {_MAX_NAME} characters")
        if name in self._regions:
            raise _bad("a region of this name is registered already")
        if len(self._regions) >= _MAX_REGIONS:
            raise _bad(f"there are {_MAX_REGIONS} regions already")
        if not (0 <= asked.offset <= _MAX_SIZE and 0 < asked.byte_size <= _MAX_SIZE):
            raise _bad("offset and byte_size must be numbers of bytes that memory can have")
        fd = self._open(asked.key, asked.offset + asked.byte_size)
        region = _Region(key=asked.key, fd=fd, offset=asked.offset, size=asked.byte_size)
        weakref.finalize(region, os.close, fd)
        self._regions[name] = region

    def unregister(self, name: str) -> None:
        """Of a name that is not registered this is no error, as in Triton. All, when `name` is empty."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """Of one, or of all. Raises InferenceRequestInvalid for a name that is not registered."""
        if name and name not in self._regions:
            raise _bad("there is no such region")
        return [
            {"name": each, "key": region.key, "offset": region.offset, "byte_size": region.size}
            for each, region in self._regions.items()
            if name in {"", each}
        ]

    def read(self, tensor: str, place: Place, allowance: Allowance) -> bytes:
        """A copy of its bytes. Raises InferenceRequestInvalid, RequestTooLarge; `tensor` is for the text."""
        region, at = self._find(tensor, place)
        allowance.take(place.size)
        parts: list[bytes] = []
        left = place.size
        while left:
            part = os.pread(region.fd, left, at)
            if not part:
                raise _not_there(tensor)  # cut short since it was registered
            parts.append(part)
            at += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, tensor: str, place: Place, data: bytes) -> None:
        """`data` at the beginning of the place. Raises InferenceRequestInvalid when it does not fit."""
        region, at = self._find(tensor, place)
        if len(data) > place.size:
            raise _bad(f"{tensor} has {len(data)} bytes, its shared memory {place.size}")
        try:
            size = os.fstat(region.fd).st_size
            if at + len(data) > size:  # writing there would make the client's object grow again
                raise _not_there(tensor)
            while data:
                written = os.pwrite(region.fd, data, at)
                data, at = data[written:], at + written
        except OSError as error:
            raise _not_there(tensor) from error

    # --- inside

    def _find(self, tensor: str, place: Place) -> tuple[_Region, int]:
        """One text for every reason: a region that is not there, too small, or somebody else's, looks the same."""
        region = self._regions.get(place.region)
        if region is None or place.offset < 0 or place.size < 0 or place.offset + place.size > region.size:
            raise _not_there(tensor)
        return region, region.offset + place.offset

    def _open(self, key: str, size: int) -> int:
        """The object of `key`, as shm_open(3) would find it: a plain file, never one elsewhere."""
        name = key.removeprefix("/")
        if not name or "/" in name or "\0" in name or name in {".", ".."} or len(name.encode()) > _MAX_KEY:
            raise _bad("the key of a region is the name of a shared memory object, without any path")
        try:
            fd = os.open(f"{self._folder}/{name}", _FLAGS)
        except OSError as error:
            raise _not_registered() from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size < size:
            os.close(fd)
            raise _not_registered()
        return fd


def _not_there(tensor: str) -> InferenceRequestInvalid:
    return _bad(f"{tensor} does not lie in shared memory that is registered")


def _not_registered() -> InferenceRequestInvalid:
    return _bad("there is no shared memory object of this key and size that this server may use")
