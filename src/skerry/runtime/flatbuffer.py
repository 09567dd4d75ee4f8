# SPDX-License-Identifier: Apache-2.0
"""Reading tables of a FlatBuffers file (https://flatbuffers.dev/internals/) without trusting any offset in it."""

from __future__ import annotations

import struct
from typing import Final, Self

_U16: Final = struct.Struct("<H")
_I32: Final = struct.Struct("<i")
_U32: Final = struct.Struct("<I")
_SCALARS: Final = {code: struct.Struct(f"<{code}") for code in "bBhHiIqQf"}
_SLOTS_BEGIN: Final = 4  # after the size of the vtable and that of the table


class Malformed(Exception):
    """An offset leads out of the file."""


def _at(kind: struct.Struct, data: bytes, position: int) -> int:
    if position < 0 or position + kind.size > len(data):
        raise Malformed
    return int(kind.unpack_from(data, position)[0])


class Table:
    """One table. Fields are counted from 0, as in the schema. Every method raises Malformed."""

    __slots__ = ("_data", "_position", "_slots")

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        vtable = position - _at(_I32, data, position)
        size = _at(_U16, data, vtable)
        if size < _SLOTS_BEGIN or size % 2 or vtable + size > len(data):
            raise Malformed
        self._slots = struct.unpack_from(f"<{(size - _SLOTS_BEGIN) // 2}H", data, vtable + _SLOTS_BEGIN)

    @classmethod
    def root(cls, data: bytes) -> Self:
        return cls(data, _at(_U32, data, 0))

    def _field(self, number: int) -> int:
        """Position of a field in the file; 0 when it is not there."""
        offset = self._slots[number] if number < len(self._slots) else 0
        return self._position + offset if offset else 0

    def has(self, number: int) -> bool:
        return bool(self._field(number))

    def scalar(self, number: int, kind: str, default: int = 0) -> int:
        """`kind` as the module struct names it."""
        position = self._field(number)
        return _at(_SCALARS[kind], self._data, position) if position else default

    def _target(self, number: int) -> int:
        position = self._field(number)
        return position + _at(_U32, self._data, position) if position else 0

    def table(self, number: int) -> Table | None:
        target = self._target(number)
        return Table(self._data, target) if target else None

    def _vector(self, number: int, item: int) -> tuple[int, int]:
        """Position of the first item and number of items; (0, 0) when it is not there."""
        target = self._target(number)
        if not target:
            return 0, 0
        count = _at(_U32, self._data, target)
        if target + 4 + count * item > len(self._data):
            raise Malformed
        return target + 4, count

    def length(self, number: int, item: int = 1) -> int:
        """Items of a vector whose items take `item` bytes each."""
        return self._vector(number, item)[1]

    def numbers(self, number: int, kind: str) -> tuple[int, ...]:
        begin, count = self._vector(number, _SCALARS[kind].size)
        return struct.unpack_from(f"<{count}{kind}", self._data, begin) if count else ()

    def text(self, number: int) -> str:
        begin, count = self._vector(number, 1)
        return self._data[begin : begin + count].decode("utf-8", "replace")

    def tables(self, number: int) -> list[Table]:
        begin, count = self._vector(number, 4)
        return [
            Table(self._data, position + _at(_U32, self._data, position))
            for position in range(begin, begin + 4 * count, 4)
        ]
