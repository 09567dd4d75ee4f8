# SPDX-License-Identifier: Apache-2.0
"""Tar headers in the one form an .skb has (POSIX.1-2001 ustar, no extensions), written and read.

Reading knows every other form well enough to say what it is, and accepts none of them: an entry is a plain file with a
name of one meaning, mode 0644, owner 0 and time 0, or it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from skerry.bundle import paths
from skerry.errors import ArchiveBomb, ArchiveRefused, BadEntryName, DeviceInArchive, LinkInArchive, TruncatedArchive

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
MAX_SIZE: Final = 8**11 - 1

_NAME_ROOM: Final = 100
_MODE: Final = 0o644
_FILE: Final = b"0"
_LINKS: Final = {b"1": "hard link", b"2": "symbolic link"}
_SPECIAL: Final = {
    b"3": "character device",
    b"4": "block device",
    b"5": "folder",
    b"6": "fifo",
    b"7": "contiguous file",
}
_TRICKS: Final = {
    b"S": "a sparse file",
    b"x": "a pax header",
    b"g": "a global pax header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"V": "a volume label",
    b"M": "a continued file",
    b"D": "a GNU folder",
    b"\0": "a file of the old tar form",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    name: str
    size: int


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a file's content."""
    raw = name.encode("ascii")
    if len(raw) >= _NAME_ROOM or not 0 <= size <= MAX_SIZE:
        raise ValueError(f"{name} with {size} bytes does not fit a ustar header")
    block = b"".join(
        (
            raw.ljust(_NAME_ROOM, b"\0"),
            b"%07o\0" % _MODE,
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            b"%011o\0" % size,
            b"%011o\0" % 0,
            b" " * 8,
            _FILE,
            bytes(100),
            b"ustar\x0000",
            bytes(32),
            bytes(32),
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            bytes(155),
            bytes(12),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def is_header(block: bytes) -> bool:
    """Whether this is a tar header at all, undamaged."""
    return block[257:262] == b"ustar" and _checksum(block) == block[148:156]


def padding(size: int) -> int:
    """Bytes of zeros after a content of `size`."""
    return -size % BLOCK


def parse(block: bytes) -> Entry:
    """The entry of a header that is not the end mark. Raises the ArchiveRefused that names what is wrong with it."""
    name = _shown_name(block)
    if _checksum(block) != block[148:156]:
        raise TruncatedArchive(entry="an entry's header")  # its name may be anything: not shown
    _require_plain_file(name, block[156:157])
    _require_name(name, block)
    size = _size(name, block[124:136])
    if block != header(name, size):
        raise ArchiveRefused(entry=name, problem=_oddity(block))
    return Entry(name=name, size=size)


def _shown_name(block: bytes) -> str:
    prefix = block[345:500].rstrip(b"\0")
    name = block[:_NAME_ROOM].rstrip(b"\0")
    return (prefix + b"/" + name if prefix else name).decode("latin-1")


def _checksum(block: bytes) -> bytes:
    return b"%06o\0 " % (sum(block[:148]) + 8 * 0x20 + sum(block[156:]))


def _require_plain_file(name: str, kind: bytes) -> None:
    if kind in _LINKS:
        raise LinkInArchive(entry=ascii(name))
    if kind in _SPECIAL:
        raise DeviceInArchive(entry=ascii(name), kind=_SPECIAL[kind])
    if kind != _FILE:
        raise ArchiveRefused(entry=ascii(name), problem=_TRICKS.get(kind, f"entry type {kind!r}"))


def _require_name(name: str, block: bytes) -> None:
    refusal = paths.refusal_of(name)
    if refusal is not None:
        raise refusal
    if block[345:500].strip(b"\0") or len(name) >= _NAME_ROOM:
        raise BadEntryName(entry=name, problem="longer than any entry of a bundle")


def _size(name: str, field: bytes) -> int:
    if field[0] & 0x80:
        raise ArchiveBomb(entry=name, limit=f"{MAX_SIZE} bytes")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise ArchiveRefused(entry=name, problem="its size is not a number")
    size = int(digits, 8)
    if size > MAX_SIZE:
        raise ArchiveBomb(entry=name, limit=f"{MAX_SIZE} bytes")
    return size


def _oddity(block: bytes) -> str:
    mode = block[100:108].strip(b" \0")
    if mode != b"%07o" % _MODE:
        return f"mode {mode.decode('latin-1')!r}, only 0644 is allowed"
    return "its header has an owner, a time, a link or a form that `skerry pack` never writes"
